{{/* Name of the chart; part of labels. */}}
{{- define "dra-driver-nvidia-gpu.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* Prefix of object names. Not made from the release's name, so that scripts know it. */}}
{{- define "dra-driver-nvidia-gpu.fullname" -}}
{{- .Values.fullnameOverride | default (include "dra-driver-nvidia-gpu.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{/* Labels of every object. */}}
{{- define "dra-driver-nvidia-gpu.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "dra-driver-nvidia-gpu.podLabels" . }}
{{- end }}

{{/* Labels of every pod and object. */}}
{{- define "dra-driver-nvidia-gpu.podLabels" -}}
app.kubernetes.io/name: {{ include "dra-driver-nvidia-gpu.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What a workload selects its pods by: (list . "component"). Immutable once installed. */}}
{{- define "dra-driver-nvidia-gpu.selectorLabels" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.selectorLabelsOverride -}}
{{ toYaml $root.Values.selectorLabelsOverride }}
{{- else -}}
{{ include "dra-driver-nvidia-gpu.name" $root }}-component: {{ index . 1 }}
{{- end -}}
{{- end }}

{{/* Labels of a workload's pods: (list . "component"). An override may name labels that all pods have. */}}
{{- define "dra-driver-nvidia-gpu.labelsOfPods" -}}
{{- $all := include "dra-driver-nvidia-gpu.podLabels" (index . 0) | fromYaml -}}
{{- $own := include "dra-driver-nvidia-gpu.selectorLabels" . | fromYaml -}}
{{- mergeOverwrite $all $own | toYaml -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.image" -}}
{{- $image := .Values.image | default dict -}}
{{- $repository := $image.repository | default (printf "localhost/%s" .Chart.Name) -}}
{{- $tag := $image.tag | default (printf "v%s" .Chart.AppVersion) -}}
{{- if hasPrefix "sha256:" (toString $tag) -}}
{{ $repository }}@{{ $tag }}
{{- else -}}
{{ $repository }}:{{ $tag }}
{{- end -}}
{{- end }}

{{/* Account of a component: (list . "-kubeletplugin"). A brought account is used as it is named. */}}
{{- define "dra-driver-nvidia-gpu.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- $account := $root.Values.serviceAccount | default dict -}}
{{- if include "dra-driver-nvidia-gpu.createAccounts" $root -}}
{{ $account.name | default (printf "%s-service-account" (include "dra-driver-nvidia-gpu.fullname" $root)) }}{{ index . 1 }}
{{- else -}}
{{ $account.name | default "default" }}
{{- end -}}
{{- end }}

{{/* Whether accounts and their rights are made; a subtree that is not set counts as its default. */}}
{{- define "dra-driver-nvidia-gpu.createAccounts" -}}
{{- if or (not .Values.serviceAccount) .Values.serviceAccount.create }}true{{ end -}}
{{- end }}

{{/* Newest version of resource.k8s.io that the cluster serves; empty if it serves none. */}}
{{- define "dra-driver-nvidia-gpu.resourceApiVersion" -}}
{{- if .Values.resourceApiVersion -}}
{{ .Values.resourceApiVersion }}
{{- else -}}
{{- $served := .Capabilities.APIVersions -}}
{{- $found := "" -}}
{{- range (list "v1" "v1beta2" "v1beta1") -}}
{{- $candidate := printf "resource.k8s.io/%s" . -}}
{{- if and (not $found) ($served.Has $candidate) -}}
{{- $found = $candidate -}}
{{- end -}}
{{- end -}}
{{ $found }}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.gpusEnabled" -}}
{{- if ((.Values.resources).gpus).enabled }}true{{ end -}}
{{- end }}

{{/* Whether there is a driver for the kubelet plugin to run. */}}
{{- define "dra-driver-nvidia-gpu.pluginEnabled" -}}
{{- if or (include "dra-driver-nvidia-gpu.gpusEnabled" .) (include "dra-driver-nvidia-gpu.domainsEnabled" .) }}true{{ end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.simulated" -}}
{{- if (.Values.simulation).enabled }}true{{ end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.simulationDir" -}}
{{- (.Values.simulation).stateDirectory | default "/var/lib/dra-driver-nvidia-gpu/simulated" | trimSuffix "/" -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.cdiHookPath" -}}
{{- .Values.nvidiaCDIHookPath | default .Values.nvidiaCtkPath -}}
{{- end }}

{{/* A map of gates as NAME=true,NAME=false. */}}
{{- define "dra-driver-nvidia-gpu.featureGates" -}}
{{- $pairs := list -}}
{{- range $name, $enabled := .Values.featureGates | default dict -}}
{{- if not (kindIs "invalid" $enabled) -}}
{{- $pairs = append $pairs (printf "%s=%v" $name $enabled) -}}
{{- end -}}
{{- end -}}
{{ join "," $pairs }}
{{- end }}

{{/* A literal environment variable, unless its value is empty or null: (list NAME value). */}}
{{- define "dra-driver-nvidia-gpu.env" -}}
{{- if not (has (index . 1 | toString) (list "" "<nil>")) }}
- name: {{ index . 0 }}
  value: {{ index . 1 | toString | quote }}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.env.identity" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}
