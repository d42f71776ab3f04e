{{/* What compute domains need in several objects. */}}

{{- define "dra-driver-nvidia-gpu.domainsEnabled" -}}
{{- if ((.Values.resources).computeDomains).enabled }}true{{ end -}}
{{- end }}

{{/* Whether the hosts run their IMEX daemons themselves. */}}
{{- define "dra-driver-nvidia-gpu.hostManaged" -}}
{{- if eq ((((.Values.resources).computeDomains).imex).mode | default "" | toString) "hostManaged" }}true{{ end -}}
{{- end }}

{{/* Whether compute domains are on, and their IMEX daemons are the driver's. */}}
{{- define "dra-driver-nvidia-gpu.driverManaged" -}}
{{- if and (include "dra-driver-nvidia-gpu.domainsEnabled" .) (not (include "dra-driver-nvidia-gpu.hostManaged" .)) }}true{{ end -}}
{{- end }}

{{/* Whether the plugin writes its node: it joins and leaves domains, or carries their NVLink clique. */}}
{{- define "dra-driver-nvidia-gpu.writesNodes" -}}
{{- $label := ((((.Values.kubeletPlugin).containers).computeDomains).gpuCliqueLabelEnabled) | toString -}}
{{- if include "dra-driver-nvidia-gpu.domainsEnabled" . -}}
{{- if or (include "dra-driver-nvidia-gpu.driverManaged" .) (eq $label "true") }}true{{ end -}}
{{- end -}}
{{- end }}

{{/* Comma-separated: where DaemonSets of other installations may be. A value from elsewhere is not known here. */}}
{{- define "dra-driver-nvidia-gpu.additionalNamespaces" -}}
{{- $found := list -}}
{{- range ((((.Values.controller).containers).computeDomain).env) -}}
{{- if eq .name "ADDITIONAL_NAMESPACES" -}}
{{- $found = regexSplit "[,\\s]+" (.value | default "" | toString) -1 -}}
{{- end -}}
{{- end -}}
{{- without ($found | uniq) "" (include "dra-driver-nvidia-gpu.namespace" .) | join "," -}}
{{- end }}

{{/* Comma-separated: every namespace where daemons and cliques may be, the driver's own first. */}}
{{- define "dra-driver-nvidia-gpu.domains.namespaces" -}}
{{- list (include "dra-driver-nvidia-gpu.namespace" .) (include "dra-driver-nvidia-gpu.additionalNamespaces" .) | compact | join "," -}}
{{- end }}

{{/* What controller and plugin are both told of domains. */}}
{{- define "dra-driver-nvidia-gpu.domains.env" -}}
{{- $imex := ((.Values.resources).computeDomains).imex | default dict -}}
{{- include "dra-driver-nvidia-gpu.env" (list "IMEX_MODE" ($imex.mode | default "")) }}
{{- include "dra-driver-nvidia-gpu.env" (list "IMEX_ISOLATION" ($imex.isolation | default "")) }}
{{- end }}
