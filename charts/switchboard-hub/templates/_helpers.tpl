{{- define "switchboard-hub.name" -}}
{{- .Values.name | default .Release.Name -}}
{{- end }}

{{/*
Metadata of an object: from root (the chart's context) and name.
*/}}
{{- define "switchboard-hub.metadata" -}}
{{- with .root -}}
name: {{ $.name | quote }}
namespace: {{ .Release.Namespace | quote }}
labels:
  app.kubernetes.io/name: switchboard
  app.kubernetes.io/instance: {{ .Release.Name | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .Values.keep .Values.annotations }}
annotations:
  {{- if .Values.keep }}
  helm.sh/resource-policy: keep
  {{- end }}
  {{- with .Values.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
