{{/* Labels of all objects. */}}
{{- define "larder.labels" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/part-of: larder
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What selects the pods of a component. Never to be changed: selectors of workloads can't be. */}}
{{- define "larder.selector" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{/* An image's name: of (dict "image" VALUES "root" $). */}}
{{- define "larder.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default (printf "v%s" .root.Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* The agents' namespace. */}}
{{- define "larder.agentNamespace" -}}
{{- if eq .Values.agent.namespace .Release.Namespace -}}
{{- fail (printf "agent.namespace is %s, which is the operator's namespace too: the agents need one of their own, in which nobody else may create pods" .Values.agent.namespace) -}}
{{- end -}}
{{ .Values.agent.namespace }}
{{- end -}}

{{/* The folder of the runtime's socket. */}}
{{- define "larder.runtimeFolder" -}}
{{- if .endpoint -}}
{{ dir (trimPrefix "unix://" .endpoint) }}
{{- else -}}
{{ .folder }}
{{- end -}}
{{- end -}}
