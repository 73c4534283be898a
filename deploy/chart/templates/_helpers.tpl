{{- define "bgpanet.labels" -}}
app.kubernetes.io/name: bgpanet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "bgpanet.name" -}}
{{ printf "%s-%s" .root.Release.Name .component | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "bgpanet.metadata" -}}
name: {{ include "bgpanet.name" . }}
labels:
  {{- include "bgpanet.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "bgpanet.environment" -}}
- {name: BGPANET_HOME, value: /var/lib/bgpanet}
- {name: BGPANET_DATABASE_URL_FILE, value: /run/secrets/bgpanet/database_url}
- {name: BGPANET_REDIS_URL_FILE, value: /run/secrets/bgpanet/redis_url}
- {name: BGPANET_ARTIFACTS_URL, value: {{ .root.Values.artifacts.url | quote }}}
- {name: AWS_SHARED_CREDENTIALS_FILE, value: /run/secrets/bgpanet/s3_credentials}
- {name: AWS_DEFAULT_REGION, value: {{ .root.Values.artifacts.region | quote }}}
{{- with .root.Values.artifacts.endpointUrl }}
- {name: BGPANET_S3_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
- {name: BGPANET_LOG_FORMAT, value: {{ .root.Values.logFormat }}}
{{- range $name, $value := .root.Values.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- /* What every pod has: no root, no token of the cluster, nothing written to its image. */}}
{{- define "bgpanet.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "bgpanet.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
volumeMounts:
  - {name: secrets, mountPath: /run/secrets/bgpanet, readOnly: true}
  - {name: home, mountPath: /var/lib/bgpanet}
  - {name: temporary, mountPath: /tmp}
{{- end }}

{{- define "bgpanet.metrics" -}}
- {name: BGPANET_METRICS_HOST, value: 0.0.0.0}
- {name: BGPANET_METRICS_PORT, value: "9464"}
{{- end }}

{{- define "bgpanet.secrets" -}}
- name: secrets
  secret:
    secretName: {{ .root.Values.secretName }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
