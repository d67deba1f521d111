{{/*
Name of everything that the chart makes: the release's, which is made to say
what it is.
*/}}
{{- define "switchboard.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains "operator" .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else if contains "switchboard" .Release.Name -}}
{{- printf "%s-operator" (.Release.Name | trunc 36 | trimSuffix "-") -}}
{{- else -}}
{{- printf "%s-switchboard-operator" (.Release.Name | trunc 24 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{/* Names go through toYaml, here and elsewhere: it quotes one that would be read as a number. */}}
{{- define "switchboard.selectorLabels" -}}
app.kubernetes.io/name: switchboard
app.kubernetes.io/instance: {{ .Release.Name | toYaml }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "switchboard.labels" -}}
{{ include "switchboard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Metadata of an object: from root (the chart's context), name, namespace (none
for what has none), and what else it has of labels and annotations.
*/}}
{{- define "switchboard.metadata" -}}
name: {{ .name | toYaml }}
{{- with .namespace }}
namespace: {{ . | toYaml }}
{{- end }}
labels:
  {{- include "switchboard.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Fails unless the cluster knows an API; what asks for it, and says what to do
otherwise.
*/}}
{{- define "switchboard.requireAPI" -}}
{{- if and .root.Values.checkAPIs (not (.root.Capabilities.APIVersions.Has .api)) -}}
{{- fail (printf "%s needs %s, which the cluster does not know: %s. If it will know it by then, as when a tool renders the chart without a cluster, set checkAPIs=false" .what .api .instead) -}}
{{- end -}}
{{- end }}

{{- define "switchboard.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "switchboard.name" .) -}}
{{- else -}}
{{- required "serviceAccount.create=false needs serviceAccount.name, or every pod of the namespace that has no ServiceAccount of its own would have the operator's rights" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "switchboard.leaseName" -}}
{{- (.Values.leaderElection).leaseName | default "switchboard-operator" -}}
{{- end }}

{{- define "switchboard.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if contains ":" $tag -}}
{{- fail (printf "image.tag=%s is no tag: for a digest set image.digest" $tag) -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{- printf "%s@%s" $.Values.image.repository . -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end }}
