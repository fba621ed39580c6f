{{- define "name" -}}
{{- if contains "alula-gateway" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-alula-gateway{{ end }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: alula-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
