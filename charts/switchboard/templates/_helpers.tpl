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

{{/*
The operators of other releases in the namespace that have this one's lease, "NAME of release
RELEASE and …", when nobody has chosen it, and as far as there is a cluster to be asked (helm
template asks none).
*/}}
{{- define "switchboard.leaseShared" -}}
{{- $ours := include "switchboard.leaseName" . -}}
{{- $others := list -}}
{{- $deployments := dict -}}
{{- if not (.Values.leaderElection).leaseName -}}
{{- $deployments = lookup "apps/v1" "Deployment" .Release.Namespace "" -}}
{{- end -}}
{{- range $deployments.items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $instance := index $labels "app.kubernetes.io/instance" | default "" -}}
{{- if and (eq (index $labels "app.kubernetes.io/name" | default "") "switchboard") (eq (index $labels "app.kubernetes.io/component" | default "") "operator") (ne $instance $.Release.Name) -}}
{{- $theirs := "switchboard-operator" -}}
{{- range .spec.template.spec.containers -}}
{{- range .args -}}
{{- if hasPrefix "--lease-name=" . -}}
{{- $theirs = trimPrefix "--lease-name=" . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $theirs $ours -}}
{{- $others = append $others (printf "%s of release %s" .metadata.name $instance) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join " and " $others -}}
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
