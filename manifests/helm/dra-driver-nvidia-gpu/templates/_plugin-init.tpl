{{/* What runs before the drivers: one of these two. */}}

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
