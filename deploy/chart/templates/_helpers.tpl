{{/* What the templates share. */}}

{{/* The name of nearly everything; a release named like the chart gives the names of deploy/install.yaml. */}}
{{- define "tuinly.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 34 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* What selects the Pods. It must never change, as a Deployment's selector cannot: hence by name alone. */}}
{{- define "tuinly.selector" -}}
app.kubernetes.io/name: {{ include "tuinly.name" . }}
{{- end -}}

{{- define "tuinly.labels" -}}
{{ include "tuinly.selector" . }}
app.kubernetes.io/part-of: tuinly-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tuinly.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Who a Pod of ours runs as. */}}
{{- define "tuinly.user" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . | int64 }}
{{- end }}
{{- with .Values.runAsGroup }}
runAsGroup: {{ . | int64 }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What its container may do: nothing. */}}
{{- define "tuinly.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The ConfigMap with certificate authorities, if any. */}}
{{- define "tuinly.caConfigMap" -}}
{{- if .Values.caBundle.pem -}}
{{ include "tuinly.name" . }}-ca
{{- else -}}
{{ .Values.caBundle.configMap }}
{{- end -}}
{{- end -}}

{{/* The rules of the operator's rights where it serves: those of deploy/base/rights.yaml and of the component push, which
give the reasons. */}}
{{- define "tuinly.rules" -}}
- apiGroups: [tuinly.com]
  resources: [tuinlycredentials]
  verbs: [list, watch]
- apiGroups: [tuinly.com]
  resources: [tuinlycredentials/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.push.enabled }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
{{- end }}
{{- end -}}

{{- define "tuinly.subjects" -}}
- kind: ServiceAccount
  name: {{ include "tuinly.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
