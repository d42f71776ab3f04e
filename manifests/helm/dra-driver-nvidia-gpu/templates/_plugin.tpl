{{/* Pieces of the kubelet plugin's pod. */}}

{{/* As the API server knows it. */}}
{{- define "dra-driver-nvidia-gpu.plugin.user" -}}
{{- printf "system:serviceaccount:%s:%s" (include "dra-driver-nvidia-gpu.namespace" .) (include "dra-driver-nvidia-gpu.serviceAccountName" (list . "-kubeletplugin")) -}}
{{- end }}

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

{{/* Settings of a container of the pod, as YAML: (list . "gpus"). */}}
{{- define "dra-driver-nvidia-gpu.plugin.settings" -}}
{{- $containers := ((index . 0).Values.kubeletPlugin).containers | default dict -}}
{{- get $containers (index . 1) | default dict | toYaml -}}
{{- end }}

{{/* Port of a container's liveness service; empty when it is off: (list . "gpus"). */}}
{{- define "dra-driver-nvidia-gpu.plugin.healthPort" -}}
{{- $settings := include "dra-driver-nvidia-gpu.plugin.settings" . | fromYaml -}}
{{- $port := int $settings.healthcheckPort -}}
{{- if gt $port 0 }}{{ $port }}{{ end -}}
{{- end }}

{{/* HOST:PORT of a container's HTTP endpoint; empty when it is off: (list . "gpus"). */}}
{{- define "dra-driver-nvidia-gpu.plugin.endpoint" -}}
{{- $metrics := ((index . 0).Values.kubeletPlugin).metrics | default dict -}}
{{- $names := dict "gpus" "gpuHttpEndpoint" "computeDomains" "computeDomainHttpEndpoint" -}}
{{- get $metrics (get $names (index . 1)) | default "" -}}
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

{{- define "dra-driver-nvidia-gpu.plugin.gpus" -}}
{{- include "dra-driver-nvidia-gpu.plugin.driver" (dict "root" . "settings" "gpus" "name" "gpus"
    "program" "nvdra-gpu-plugin" "port" "metrics"
    "env" (include "dra-driver-nvidia-gpu.env" (list "CONSUMABLE_SHARES" (.Values.consumableShares | default "")))) -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.computeDomains" -}}
{{- include "dra-driver-nvidia-gpu.plugin.driver" (dict "root" . "settings" "computeDomains" "name" "compute-domains"
    "program" "nvdra-compute-domain-plugin" "port" "metrics-domains"
    "env" (include "dra-driver-nvidia-gpu.plugin.computeDomains.env" .)) -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.plugin.computeDomains.env" -}}
{{- $imex := ((.Values.resources).computeDomains).imex | default dict -}}
{{- $label := (include "dra-driver-nvidia-gpu.plugin.settings" (list . "computeDomains") | fromYaml).gpuCliqueLabelEnabled -}}
{{- include "dra-driver-nvidia-gpu.domains.env" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "ADDITIONAL_NAMESPACES" (include "dra-driver-nvidia-gpu.additionalNamespaces" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "IMEX_HOST_SOCKET_PATH" ($imex.hostSocketPath | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "GPU_CLIQUE_LABEL_ENABLED" (ternary "true" "" (eq (toString $label) "true"))) }}
{{- end }}

{{/* Container of one driver: (dict root, settings, name, program, port, env). */}}
{{- define "dra-driver-nvidia-gpu.plugin.driver" -}}
{{- $which := list .root .settings -}}
{{- $settings := include "dra-driver-nvidia-gpu.plugin.settings" $which | fromYaml -}}
{{- $health := include "dra-driver-nvidia-gpu.plugin.healthPort" $which -}}
{{- $endpoint := include "dra-driver-nvidia-gpu.plugin.endpoint" $which -}}
- name: {{ .name }}
  {{- include "dra-driver-nvidia-gpu.plugin.container" (list .root $settings) | nindent 2 }}
  {{- include "dra-driver-nvidia-gpu.plugin.command" (list .root .program) | nindent 2 }}
  env:
  {{- $env := include "dra-driver-nvidia-gpu.plugin.driver.env" .root }}
  {{- $env = print $env .env (include "dra-driver-nvidia-gpu.env" (list "HEALTHCHECK_PORT" $health)) }}
  {{- print $env (include "dra-driver-nvidia-gpu.env" (list "HTTP_ENDPOINT" $endpoint)) | trim | nindent 2 }}
  {{- with $settings.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $endpoint }}
  ports:
  - name: {{ $.port }}
    containerPort: {{ include "dra-driver-nvidia-gpu.port" (list "kubeletPlugin.metrics" .) }}
  {{- end }}
  {{- include "dra-driver-nvidia-gpu.plugin.probes" (dict "health" $health "endpoint" $endpoint "port" .port) | trim | nindent 2 }}
  volumeMounts:
  {{- include "dra-driver-nvidia-gpu.plugin.driver.mounts" .root | nindent 2 }}
{{- end }}

{{/* The driver is process 1, also when a shell prepares its mounts: (list . program). */}}
{{- define "dra-driver-nvidia-gpu.plugin.command" -}}
{{- $root := index . 0 -}}
{{- $arguments := list (index . 1) -}}
{{- if not (($root.Values.kubeletPlugin).metrics).enabled -}}
{{- $arguments = append $arguments "--metrics-path=" -}}
{{- end -}}
{{- if and $root.Values.maskNvidiaDriverParams (not (include "dra-driver-nvidia-gpu.simulated" $root)) -}}
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

{{/* What all drivers of the pod are told. */}}
{{- define "dra-driver-nvidia-gpu.plugin.driver.env" -}}
{{- $metrics := (.Values.kubeletPlugin).metrics | default dict -}}
{{- include "dra-driver-nvidia-gpu.env.identity" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "LOG_VERBOSITY" (.Values.logVerbosity | toString)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "FEATURE_GATES" (include "dra-driver-nvidia-gpu.featureGates" .)) }}
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
{{- define "dra-driver-nvidia-gpu.plugin.driver.mounts" -}}
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

{{/* Port of a HOST:PORT: (list "where.it.is.set" value). */}}
{{- define "dra-driver-nvidia-gpu.port" -}}
{{- regexFind "[0-9]+$" (index . 1) | required (printf "%s: endpoint %q has no port; write [HOST]:PORT" (index . 0) (index . 1)) -}}
{{- end }}

{{/* Ready once the kubelet has registered the driver; alive while its sockets answer. */}}
{{- define "dra-driver-nvidia-gpu.plugin.probes" -}}
{{- if .endpoint }}
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ .port }}
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
