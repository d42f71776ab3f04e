{{- define "dra-driver-nvidia-gpu.validateSimulation" -}}
{{- if include "dra-driver-nvidia-gpu.simulated" . -}}
{{- $simulation := .Values.simulation -}}
{{- if not (or $simulation.profile $simulation.profileLabel) -}}
{{- fail "simulation.enabled needs simulation.profile (e.g. h100), or simulation.profileLabel for nodes that carry that label" -}}
{{- end -}}
{{- if and $simulation.migLayout (not (hasKey (($simulation.migLayouts | default dict) | dig "mig-configs" dict) $simulation.migLayout)) -}}
{{- fail (printf "simulation.migLayout %q is not among simulation.migLayouts.mig-configs" $simulation.migLayout) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.validateImex" -}}
{{- $domains := (.Values.resources).computeDomains | default dict -}}
{{- if $domains.enabled -}}
{{- $imex := $domains.imex | default dict -}}
{{- $mode := $imex.mode | default "driverManaged" | toString -}}
{{- $isolation := $imex.isolation | default "domain" | toString -}}
{{- if not (has $mode (list "driverManaged" "hostManaged")) -}}
{{- fail (printf "unknown resources.computeDomains.imex.mode %q: use driverManaged or hostManaged" $mode) -}}
{{- end -}}
{{- if and (eq $mode "hostManaged") (ne ((.Values.featureGates).HostManagedIMEXDaemon | toString) "true") -}}
{{- fail "resources.computeDomains.imex.mode=hostManaged requires featureGates.HostManagedIMEXDaemon=true" -}}
{{- end -}}
{{- if eq $isolation "channel" -}}
{{- fail "resources.computeDomains.imex.isolation=channel is not supported yet; use domain" -}}
{{- else if ne $isolation "domain" -}}
{{- fail (printf "unknown resources.computeDomains.imex.isolation %q: use domain" $isolation) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.validateController" -}}
{{- if include "dra-driver-nvidia-gpu.domainsEnabled" . -}}
{{- $replicas := include "dra-driver-nvidia-gpu.controller.replicas" . | int -}}
{{- if and (gt $replicas 1) (not (include "dra-driver-nvidia-gpu.controller.election" .)) -}}
{{- fail (printf "controller.replicas=%d needs controller.leaderElection.enabled=true (or auto): without an election all replicas write the same objects" $replicas) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The containers of the plugin's pod share its ports. */}}
{{- define "dra-driver-nvidia-gpu.validatePorts" -}}
{{- $seen := dict -}}
{{- $containers := list -}}
{{- if include "dra-driver-nvidia-gpu.gpusEnabled" . -}}
{{- $containers = append $containers "gpus" -}}
{{- end -}}
{{- if include "dra-driver-nvidia-gpu.domainsEnabled" . -}}
{{- $containers = append $containers "computeDomains" -}}
{{- end -}}
{{- range $which := $containers -}}
{{- $endpoint := include "dra-driver-nvidia-gpu.plugin.endpoint" (list $ $which) -}}
{{- $health := include "dra-driver-nvidia-gpu.plugin.healthPort" (list $ $which) -}}
{{- range $port := list (regexFind "[0-9]+$" $endpoint) $health | compact -}}
{{- if hasKey $seen $port -}}
{{- fail (printf "port %s of kubeletPlugin is used for both %s and %s; see kubeletPlugin.metrics and healthcheckPort of kubeletPlugin.containers" $port (get $seen $port) $which) -}}
{{- end -}}
{{- $_ := set $seen $port $which -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.validateWebhook" -}}
{{- if (.Values.webhook).enabled -}}
{{- $tls := required "webhook.enabled needs webhook.tls: where the server certificate comes from" .Values.webhook.tls -}}
{{- $mode := required "webhook.tls.mode is required: cert-manager or secret" $tls.mode -}}
{{- if eq $mode "cert-manager" -}}
{{- include "dra-driver-nvidia-gpu.validateCertManager" ($tls.certManager | default dict) -}}
{{- else if eq $mode "secret" -}}
{{- $secret := required "webhook.tls.mode=secret needs webhook.tls.secret" $tls.secret -}}
{{- $_ := required "webhook.tls.mode=secret needs webhook.tls.secret.name" $secret.name -}}
{{- else -}}
{{- fail (printf "unknown webhook.tls.mode %q: use cert-manager or secret" $mode) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "dra-driver-nvidia-gpu.validateCertManager" -}}
{{- $type := required "webhook.tls.mode=cert-manager needs webhook.tls.certManager.issuerType: selfsigned, issuer or clusterissuer" .issuerType -}}
{{- if not (has $type (list "selfsigned" "issuer" "clusterissuer")) -}}
{{- fail (printf "unknown webhook.tls.certManager.issuerType %q: use selfsigned, issuer or clusterissuer" $type) -}}
{{- end -}}
{{- if and (ne $type "selfsigned") (not .issuerName) -}}
{{- fail (printf "webhook.tls.certManager.issuerType=%s needs webhook.tls.certManager.issuerName" $type) -}}
{{- end -}}
{{- end }}
