{{/* Pieces of the kubelet plugin's pod. */}}

{{/* Without a slash at its end: its parent and its name are looked for separately. */}}
{{- define "dra-driver-nvidia-gpu.plugin.driverRoot" -}}
{{- .Values.nvidiaDriverRoot | default "/" | clean -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.registryDir" -}}
{{- (.Values.kubeletPlugin).kubeletRegistrarDirectoryPath | default "/var/lib/kubelet/plugins_registry" -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.pluginsDir" -}}
{{- (.Values.kubeletPlugin).kubeletPluginsDirectoryPath | default "/var/lib/kubelet/plugins" -}}
{{- end }}

{{/* Whether old and new pod of an update serve side by side: kubelets before 1.33 cannot have that. */}}
{{- define "dra-driver-nvidia-gpu.plugin.rollingUpdate" -}}
{{- $wish := (.Values.kubeletPlugin).rollingUpdate -}}
{{- if has ($wish | toString) (list "auto" "" "<nil>") -}}
{{- if semverCompare ">=1.33.0-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- else if eq ($wish | toString) "true" -}}
true
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.updateStrategy" -}}
{{- if (.Values.kubeletPlugin).updateStrategy -}}
{{ toYaml .Values.kubeletPlugin.updateStrategy }}
{{- else -}}
type: RollingUpdate
rollingUpdate:
  {{- if include "dra-driver-nvidia-gpu.plugin.rollingUpdate" . }}
  maxSurge: 1
  maxUnavailable: 0
  {{- else }}
  maxUnavailable: 100%
  {{- end }}
{{- end -}}
{{- end }}

{{/* Port of the liveness service; empty when it is off. */}}
{{- define "dra-driver-nvidia-gpu.plugin.healthPort" -}}
{{- $port := int ((((.Values.kubeletPlugin).containers).gpus).healthcheckPort) -}}
{{- if gt $port 0 }}{{ $port }}{{ end -}}
{{- end }}

{{/* Security context of a container; the image's own user may not do what the plugin has to. */}}
{{- define "dra-driver-nvidia-gpu.plugin.securityContext" -}}
{{- $context := dict "privileged" true "runAsUser" 0 "runAsGroup" 0 -}}
{{- /* Not merged: merge takes false for "not set". */ -}}
{{- range $name, $value := . | default dict -}}
{{- $_ := set $context $name $value -}}
{{- end -}}
{{- toYaml $context -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.container" -}}
{{- $root := index . 0 -}}
{{- $container := index . 1 | default dict -}}
image: {{ include "dra-driver-nvidia-gpu.image" $root }}
{{- with ($root.Values.image).pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  {{- include "dra-driver-nvidia-gpu.plugin.securityContext" $container.securityContext | nindent 2 }}
{{- with $container.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The driver may come later than we do, and its root with it: so the root's parent is mounted. */}}
{{- define "dra-driver-nvidia-gpu.plugin.waitForDriver" -}}
{{- $driverRoot := include "dra-driver-nvidia-gpu.plugin.driverRoot" . -}}
- name: wait-for-driver
  {{- include "dra-driver-nvidia-gpu.plugin.container" (list . ((.Values.kubeletPlugin).containers).init) | nindent 2 }}
  command: [nvdra-wait-for-driver]
  env:
  {{- include "dra-driver-nvidia-gpu.plugin.waitForDriver.env" . | trim | nindent 2 }}
  {{- with (((.Values.kubeletPlugin).containers).init).env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  volumeMounts:
  - name: driver-root-parent
    mountPath: /driver-root-parent
    readOnly: true
    {{- if ne $driverRoot "/" }}
    mountPropagation: HostToContainer
    {{- end }}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.waitForDriver.env" -}}
{{- include "dra-driver-nvidia-gpu.env" (list "NVIDIA_DRIVER_ROOT" (include "dra-driver-nvidia-gpu.plugin.driverRoot" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "DRIVER_ROOT_PARENT_CTR_PATH" "/driver-root-parent") }}
{{- include "dra-driver-nvidia-gpu.env" (list "LOG_VERBOSITY" (.Values.logVerbosity | toString)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVIDIA_VISIBLE_DEVICES" "void") }}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.simulateNode" -}}
{{- $simulation := .Values.simulation -}}
- name: simulate-node
  {{- include "dra-driver-nvidia-gpu.plugin.container" (list . ((.Values.kubeletPlugin).containers).init) | nindent 2 }}
  command: [nvdra-simulate-node]
  env:
  {{- include "dra-driver-nvidia-gpu.plugin.simulateNode.env" . | trim | nindent 2 }}
  {{- with (((.Values.kubeletPlugin).containers).init).env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  volumeMounts:
  - name: simulated-hardware
    mountPath: {{ include "dra-driver-nvidia-gpu.simulationDir" . }}
  - name: host-dev
    mountPath: /host-dev
  {{- if $simulation.migLayouts }}
  - name: mig-layouts
    mountPath: /etc/nvdra
    readOnly: true
  {{- end }}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.simulateNode.env" -}}
{{- $simulation := .Values.simulation -}}
{{- include "dra-driver-nvidia-gpu.env.identity" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "LOG_VERBOSITY" (.Values.logVerbosity | toString)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_DIRECTORY" (include "dra-driver-nvidia-gpu.simulationDir" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_DEV_ROOT" "/host-dev") }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_PROFILE" ($simulation.profile | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_PROFILE_LABEL" ($simulation.profileLabel | default "")) }}
{{- if $simulation.migLayouts }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_MIG_LAYOUTS" "/etc/nvdra/mig-layouts.yaml") }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_MIG_LAYOUT" ($simulation.migLayout | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "SIMULATION_MIG_LAYOUT_LABEL" ($simulation.migLayoutLabel | default "")) }}
{{- end }}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.gpus" -}}
{{- $gpus := ((.Values.kubeletPlugin).containers).gpus | default dict -}}
{{- $endpoint := ((.Values.kubeletPlugin).metrics).gpuHttpEndpoint | default "" -}}
- name: gpus
  {{- include "dra-driver-nvidia-gpu.plugin.container" (list . $gpus) | nindent 2 }}
  {{- include "dra-driver-nvidia-gpu.plugin.command" . | nindent 2 }}
  env:
  {{- include "dra-driver-nvidia-gpu.plugin.gpus.env" . | nindent 2 }}
  {{- with $gpus.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $endpoint }}
  ports:
  - name: metrics
    containerPort: {{ include "dra-driver-nvidia-gpu.plugin.port" . }}
  {{- end }}
  {{- include "dra-driver-nvidia-gpu.plugin.probes" (dict "health" (include "dra-driver-nvidia-gpu.plugin.healthPort" .) "endpoint" $endpoint) | trim | nindent 2 }}
  volumeMounts:
  {{- include "dra-driver-nvidia-gpu.plugin.gpus.mounts" . | nindent 2 }}
{{- end }}

{{/* The driver is process 1, also when a shell prepares its mounts. */}}
{{- define "dra-driver-nvidia-gpu.plugin.command" -}}
{{- $arguments := list "nvdra-gpu-plugin" -}}
{{- if not ((.Values.kubeletPlugin).metrics).enabled -}}
{{- $arguments = append $arguments "--metrics-path=" -}}
{{- end -}}
{{- if and .Values.maskNvidiaDriverParams (not (include "dra-driver-nvidia-gpu.simulated" .)) -}}
command:
- sh
- -ec
- |
  params=/proc/driver/nvidia/params
  sed 's/^ModifyDeviceFiles: 1$/ModifyDeviceFiles: 0/' "$params" > /tmp/nvidia-params
  mount --bind /tmp/nvidia-params "$params"
  exec {{ join " " $arguments }}
{{- else -}}
command: {{ toJson $arguments }}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.gpus.env" -}}
{{- $metrics := (.Values.kubeletPlugin).metrics | default dict -}}
{{- include "dra-driver-nvidia-gpu.env.identity" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "LOG_VERBOSITY" (.Values.logVerbosity | toString)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "FEATURE_GATES" (include "dra-driver-nvidia-gpu.featureGates" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "CONSUMABLE_SHARES" (.Values.consumableShares | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVIDIA_VISIBLE_DEVICES" "void") }}
{{- include "dra-driver-nvidia-gpu.env" (list "CDI_ROOT" "/var/run/cdi") }}
{{- include "dra-driver-nvidia-gpu.env" (list "KUBELET_REGISTRAR_DIRECTORY_PATH" (include "dra-driver-nvidia-gpu.plugin.registryDir" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "KUBELET_PLUGINS_DIRECTORY_PATH" (include "dra-driver-nvidia-gpu.plugin.pluginsDir" .)) }}
{{- if include "dra-driver-nvidia-gpu.plugin.rollingUpdate" . }}
- name: ROLLING_UPDATE
  value: "true"
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
{{- end }}
{{- include "dra-driver-nvidia-gpu.env" (list "HEALTHCHECK_PORT" (include "dra-driver-nvidia-gpu.plugin.healthPort" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "HTTP_ENDPOINT" ($metrics.gpuHttpEndpoint | default "")) }}
{{- if $metrics.enabled }}
{{- include "dra-driver-nvidia-gpu.env" (list "METRICS_PATH" ($metrics.metricsPath | default "")) }}
{{- end }}
{{- if include "dra-driver-nvidia-gpu.simulated" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVDRA_SIMULATE" (printf "%s/profile.json" (include "dra-driver-nvidia-gpu.simulationDir" .))) }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVDRA_SIMULATE_STATE" (printf "%s/machine" (include "dra-driver-nvidia-gpu.simulationDir" .))) }}
{{- else }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVIDIA_DRIVER_ROOT" (include "dra-driver-nvidia-gpu.plugin.driverRoot" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVIDIA_CDI_HOOK_PATH" (include "dra-driver-nvidia-gpu.cdiHookPath" .)) }}
{{- if .Values.altProcDevices }}
{{- include "dra-driver-nvidia-gpu.env" (list "ALT_PROC_DEVICES_PATH" "/alt-proc-devices") }}
{{- end }}
{{- end }}
{{- end }}

{{/* Sockets, state and CDI files: the same paths in here and on the host. */}}
{{- define "dra-driver-nvidia-gpu.plugin.gpus.mounts" -}}
- name: plugins-registry
  mountPath: {{ include "dra-driver-nvidia-gpu.plugin.registryDir" . }}
- name: plugins
  mountPath: {{ include "dra-driver-nvidia-gpu.plugin.pluginsDir" . }}
  mountPropagation: Bidirectional
- name: cdi
  mountPath: /var/run/cdi
{{- if include "dra-driver-nvidia-gpu.simulated" . }}
- name: simulated-hardware
  mountPath: {{ include "dra-driver-nvidia-gpu.simulationDir" . }}
{{- else }}
- name: driver-root
  mountPath: /driver-root
  readOnly: true
  mountPropagation: HostToContainer
{{- if .Values.altProcDevices }}
- name: alt-proc-devices
  mountPath: /alt-proc-devices
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.port" -}}
{{- regexFind "[0-9]+$" . | required (printf "kubeletPlugin.metrics: endpoint %q has no port; write [HOST]:PORT" .) -}}
{{- end }}

{{/* Ready once the kubelet has registered the driver; alive while its sockets answer. */}}
{{- define "dra-driver-nvidia-gpu.plugin.probes" -}}
{{- with .endpoint }}
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 2
  timeoutSeconds: 2
{{- end }}
{{- with .health }}
startupProbe:
  grpc:
    port: {{ . }}
    service: liveness
  periodSeconds: 1
  timeoutSeconds: 10
  failureThreshold: 600
livenessProbe:
  grpc:
    port: {{ . }}
    service: liveness
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
{{- end }}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.volumes" -}}
- name: plugins-registry
  hostPath:
    path: {{ include "dra-driver-nvidia-gpu.plugin.registryDir" . }}
    type: DirectoryOrCreate
- name: plugins
  hostPath:
    path: {{ include "dra-driver-nvidia-gpu.plugin.pluginsDir" . }}
    type: DirectoryOrCreate
- name: cdi
  hostPath:
    path: /var/run/cdi
    type: DirectoryOrCreate
{{- if include "dra-driver-nvidia-gpu.simulated" . }}
- name: simulated-hardware
  hostPath:
    path: {{ include "dra-driver-nvidia-gpu.simulationDir" . }}
    type: DirectoryOrCreate
- name: host-dev
  hostPath:
    path: /dev
{{- if .Values.simulation.migLayouts }}
- name: mig-layouts
  configMap:
    name: {{ include "dra-driver-nvidia-gpu.fullname" . }}-simulation
{{- end }}
{{- else }}
- name: driver-root
  hostPath:
    path: {{ include "dra-driver-nvidia-gpu.plugin.driverRoot" . }}
    type: DirectoryOrCreate
- name: driver-root-parent
  hostPath:
    path: {{ include "dra-driver-nvidia-gpu.plugin.driverRoot" . | dir }}
    type: DirectoryOrCreate
{{- with .Values.altProcDevices }}
- name: alt-proc-devices
  hostPath:
    path: {{ . }}
    type: File
{{- end }}
{{- end }}
{{- end }}
