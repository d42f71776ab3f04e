{{/* A role and who has it: (dict root, name, namespace, accounts, rules). Without a namespace both are
     cluster-wide. `accounts`: NAMESPACE/NAME, comma-separated. */}}
{{- define "dra-driver-nvidia-gpu.role" -}}
{{- $prefix := ternary "" "Cluster" (hasKey . "namespace") -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}Role
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "dra-driver-nvidia-gpu.labels" .root | nindent 4 }}
rules:
{{ trim .rules }}
{{ include "dra-driver-nvidia-gpu.roleBinding" (merge (dict "kind" (printf "%sRole" $prefix)) .) }}
{{- end }}

{{/* Who has a role: (dict root, name, namespace, accounts, kind); `role` is the role's name and `binding`
     the binding's, where they differ from `name`. */}}
{{- define "dra-driver-nvidia-gpu.roleBinding" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "" "Cluster" (hasKey . "namespace") }}RoleBinding
metadata:
  name: {{ .binding | default .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "dra-driver-nvidia-gpu.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role | default .name }}
subjects:
{{- range splitList "," .accounts }}
- kind: ServiceAccount
  namespace: {{ splitList "/" . | first }}
  name: {{ splitList "/" . | last }}
{{- end }}
{{- end }}
