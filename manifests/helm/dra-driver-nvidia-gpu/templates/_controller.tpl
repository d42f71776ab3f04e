{{/* Pieces of the controller's pod. */}}

{{- define "dra-driver-nvidia-gpu.controller.replicas" -}}
{{- $replicas := (.Values.controller).replicas -}}
{{- if kindIs "invalid" $replicas }}1{{ else }}{{ int $replicas }}{{ end -}}
{{- end }}

{{/* Whether replicas elect a leader: on demand, or when there are several. */}}
{{- define "dra-driver-nvidia-gpu.controller.election" -}}
{{- $wish := ((.Values.controller).leaderElection).enabled | toString -}}
{{- if has $wish (list "auto" "" "<nil>") -}}
{{- if gt (include "dra-driver-nvidia-gpu.controller.replicas" . | int) 1 }}true{{ end -}}
{{- else if eq $wish "true" -}}
true
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.controller.computeDomain" -}}
{{- $container := ((.Values.controller).containers).computeDomain | default dict -}}
{{- $endpoint := ((.Values.controller).metrics).httpEndpoint | default "" -}}
- name: compute-domain
  image: {{ include "dra-driver-nvidia-gpu.image" . }}
  {{- with (.Values.image).pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  {{- $arguments := list "nvdra-controller" }}
  {{- if not ((.Values.controller).metrics).enabled }}
  {{- $arguments = append $arguments "--metrics-path=" }}
  {{- end }}
  command: {{ toJson $arguments }}
  securityContext:
    {{- include "dra-driver-nvidia-gpu.controller.securityContext" $container.securityContext | nindent 4 }}
  {{- with $container.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
  {{- include "dra-driver-nvidia-gpu.controller.env" . | trim | nindent 2 }}
  {{- with $container.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $endpoint }}
  ports:
  - name: metrics
    containerPort: {{ include "dra-driver-nvidia-gpu.port" (list "controller.metrics.httpEndpoint" .) }}
  readinessProbe:
    httpGet:
      path: /readyz
      port: metrics
    periodSeconds: 2
    timeoutSeconds: 2
  livenessProbe:
    httpGet:
      path: /healthz
      port: metrics
    initialDelaySeconds: 10
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  {{- end }}
  volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- end }}

{{/* It calls the API server and nothing else. */}}
{{- define "dra-driver-nvidia-gpu.controller.securityContext" -}}
{{- $context := dict "runAsNonRoot" true "readOnlyRootFilesystem" true "allowPrivilegeEscalation" false -}}
{{- $_ := set $context "capabilities" (dict "drop" (list "ALL")) -}}
{{- $_ := set $context "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- /* Not merged: merge takes false for "not set". */ -}}
{{- range $name, $value := . | default dict -}}
{{- $_ := set $context $name $value -}}
{{- end -}}
{{- toYaml $context -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.controller.env" -}}
{{- $election := (.Values.controller).leaderElection | default dict -}}
{{- $metrics := (.Values.controller).metrics | default dict -}}
{{- $secrets := list -}}
{{- range .Values.imagePullSecrets -}}
{{- $secrets = append $secrets .name -}}
{{- end -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- include "dra-driver-nvidia-gpu.env" (list "LOG_VERBOSITY" (.Values.logVerbosity | toString)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "FEATURE_GATES" (include "dra-driver-nvidia-gpu.featureGates" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "NVIDIA_VISIBLE_DEVICES" "void") }}
{{- include "dra-driver-nvidia-gpu.domains.env" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "MAX_NODES_PER_IMEX_DOMAIN" (((.Values.resources).computeDomains).imex).maxNodesPerIMEXDomain) }}
{{- include "dra-driver-nvidia-gpu.env" (list "IMAGE_NAME" (include "dra-driver-nvidia-gpu.image" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "CD_DAEMON_IMAGE_PULL_SECRET_NAMES" (join "," $secrets)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "LOG_VERBOSITY_CD_DAEMON" (include "dra-driver-nvidia-gpu.controller.daemonVerbosity" .)) }}
{{- include "dra-driver-nvidia-gpu.env" (list "HTTP_ENDPOINT" ($metrics.httpEndpoint | default "")) }}
{{- if $metrics.enabled }}
{{- include "dra-driver-nvidia-gpu.env" (list "METRICS_PATH" ($metrics.metricsPath | default "")) }}
{{- end }}
{{- if include "dra-driver-nvidia-gpu.controller.election" . }}
- name: LEADER_ELECTION_ENABLED
  value: "true"
- name: LEADER_ELECTION_LEASE_LOCK_NAME
  value: {{ include "dra-driver-nvidia-gpu.fullname" . }}-controller
- name: LEADER_ELECTION_LEASE_LOCK_NAMESPACE
  value: {{ include "dra-driver-nvidia-gpu.namespace" . }}
{{- include "dra-driver-nvidia-gpu.env" (list "LEADER_ELECTION_LEASE_DURATION" ($election.leaseDuration | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "LEADER_ELECTION_RENEW_DEADLINE" ($election.renewDeadline | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "LEADER_ELECTION_RETRY_PERIOD" ($election.retryPeriod | default "")) }}
{{- end }}
{{- end }}

{{/* Its own value, or that of all programs; the program does not start without one. */}}
{{- define "dra-driver-nvidia-gpu.controller.daemonVerbosity" -}}
{{- $own := .Values.logVerbosityCDDaemon | toString -}}
{{- $all := .Values.logVerbosity | toString -}}
{{- range list $own $all "4" -}}
{{- if not (has . (list "" "<nil>")) -}}
{{- . -}}
{{- break -}}
{{- end -}}
{{- end -}}
{{- end }}
