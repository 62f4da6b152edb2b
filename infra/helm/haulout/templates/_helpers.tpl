{{- define "haulout.name" -}}
{{- printf "%s-haulout" .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- end -}}

{{- define "haulout.labels" -}}
app.kubernetes.io/name: haulout
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Name and value of what every command needs: the repository, and how its credentials and, unless `keyless`, its key are had. */}}
{{- define "haulout.environment" -}}
- name: HAULOUT_REPO
  value: {{ .root.Values.repository.url | quote }}
{{- with .root.Values.repository.endpointUrl }}
- name: HAULOUT_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .root.Values.repository.region }}
- name: HAULOUT_REGION
  value: {{ . | quote }}
{{- end }}
{{- if not .keyless }}
{{- with .root.Values.repository.sealed }}
{{- if and .secretName .passphrase }}
- name: HAULOUT_PASSPHRASE
  valueFrom:
    secretKeyRef:
      name: {{ .secretName | quote }}
      key: {{ .passphrase | quote }}
{{- end }}
{{- if and .secretName .keyFile }}
- name: HAULOUT_KEY_FILE
  value: /etc/haulout/key
{{- end }}
{{- end }}
{{- end }}
- name: TMPDIR
  value: /var/cache/haulout
- name: HOME
  value: /var/cache/haulout
{{- end -}}

{{/* How the server is reached. */}}
{{- define "haulout.server" -}}
{{- with .Values.server.socket }}
- name: HAULOUT_SOCKET
  value: {{ . | quote }}
{{- else }}
- name: HAULOUT_HOST
  value: {{ .Values.server.host | quote }}
- name: HAULOUT_PORT
  value: {{ .Values.server.port | quote }}
{{- end }}
- name: HAULOUT_USER
  value: {{ .Values.server.user | quote }}
{{- with .Values.server.passwordSecret }}
{{- if .name }}
- name: HAULOUT_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .name | quote }}
      key: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where the copy is, and how its credentials are had where they are others. */}}
{{- define "haulout.copy" -}}
- name: HAULOUT_COPY_TO
  value: {{ .to | quote }}
{{- with .endpointUrl }}
- name: HAULOUT_COPY_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .region }}
- name: HAULOUT_COPY_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .profiles }}
{{- if .secretName }}
- name: AWS_SHARED_CREDENTIALS_FILE
  value: /etc/haulout-copy/{{ .key }}
- name: HAULOUT_COPY_PROFILE
  value: {{ .copy | quote }}
{{- with .repository }}
- name: HAULOUT_PROFILE
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What an agent needs beside: its settings file, and where it listens. */}}
{{- define "haulout.agent" -}}
- name: HAULOUT_CONFIG
  value: /etc/haulout-agent/haulout.toml
- name: HAULOUT_STATE_DIR
  value: /var/lib/haulout
- name: HAULOUT_AGENT_LISTEN
  value: "0.0.0.0:{{ .Values.agent.port }}"
- name: HAULOUT_ALLOW_REMOTE
  value: "true"
- name: HAULOUT_ALLOW_HOSTS
  value: {{ concat (list (printf "%s-agent" (include "haulout.name" .)) (printf "%s-agent.%s" (include "haulout.name" .) .Release.Namespace) (printf "%s-agent.%s.svc" (include "haulout.name" .) .Release.Namespace)) .Values.agent.hosts | join "," | quote }}
{{- if .Values.agent.token.secretName }}
- name: HAULOUT_TOKEN_FILE
  value: /etc/haulout-token/token
{{- end }}
{{- end -}}

{{/*
The pod that runs haulout: `root`, `role`, `component`, `args`, `resources`, and, where the datadir is needed, `datadir`
(`read` or `write`); `cache` is the size of its scratch space, `server` true when it speaks with the server, `keyless` when it needs no
key, `copy` the values of the copy where it writes one, `agent` the values of the agent where it is one, which runs for ever.
*/}}
{{- define "haulout.pod" -}}
{{- $values := .root.Values -}}
{{- $role := index $values.roles .role -}}
{{- $key := and (not .keyless) $values.repository.sealed.secretName $values.repository.sealed.keyFile -}}
{{- $profiles := dig "profiles" "secretName" "" (.copy | default dict) -}}
metadata:
  labels:
    {{- include "haulout.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  restartPolicy: {{ if .agent }}Always{{ else }}Never{{ end }}
  serviceAccountName: {{ include "haulout.name" .root }}-{{ .role }}
  automountServiceAccountToken: false
  # haulout stops mariadb-backup by itself, and commits nothing.
  terminationGracePeriodSeconds: 120
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $values.server.uid }}
    runAsGroup: {{ $values.server.gid }}
    {{- if not .datadir }}
    # Not where the datadir is: its files keep the group and the modes that they have.
    fsGroup: {{ $values.server.gid }}
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .server }}
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- toYaml $values.server.podLabels | nindent 14 }}
  {{- end }}
  containers:
    - name: haulout
      image: "{{ $values.image.repository }}:{{ $values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      env:
        {{- include "haulout.environment" . | nindent 8 }}
        {{- if .server }}
        {{- include "haulout.server" .root | nindent 8 }}
        {{- end }}
        {{- with .copy }}
        {{- include "haulout.copy" . | nindent 8 }}
        {{- end }}
        {{- if .agent }}
        {{- include "haulout.agent" .root | nindent 8 }}
        {{- end }}
      {{- with $role.credentialsSecret }}
      envFrom:
        - secretRef:
            name: {{ . | quote }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      {{- with .agent }}
      ports:
        - name: http
          containerPort: {{ .port }}
      # Alive is who answers. What it is about is told by metrics: a store that is away is no reason to begin anew.
      livenessProbe:
        httpGet:
          path: /healthz
          port: http
        periodSeconds: 30
        timeoutSeconds: 10
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
        periodSeconds: 30
        timeoutSeconds: 10
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - name: cache
          mountPath: /var/cache/haulout
        {{- if .datadir }}
        - name: datadir
          mountPath: {{ $values.server.mountPath | quote }}
          {{- with $values.server.subPath }}
          subPath: {{ . | quote }}
          {{- end }}
          readOnly: {{ eq .datadir "read" }}
        {{- end }}
        {{- if .scratch }}
        - name: scratch
          mountPath: /scratch
        {{- end }}
        {{- with .agent }}
        - name: settings
          mountPath: /etc/haulout-agent
          readOnly: true
        - name: state
          mountPath: /var/lib/haulout
        {{- if .token.secretName }}
        - name: token
          mountPath: /etc/haulout-token
          readOnly: true
        {{- end }}
        {{- end }}
        {{- if $key }}
        - name: key
          mountPath: /etc/haulout
          readOnly: true
        {{- end }}
        {{- if $profiles }}
        - name: profiles
          mountPath: /etc/haulout-copy
          readOnly: true
        {{- end }}
  volumes:
    - name: cache
      emptyDir:
        sizeLimit: {{ .cache | default "1Gi" }}
    {{- if .datadir }}
    - name: datadir
      persistentVolumeClaim:
        claimName: {{ $values.server.claimName | quote }}
    {{- end }}
    {{- with .agent }}
    - name: settings
      configMap:
        name: {{ include "haulout.name" $.root }}-agent
    # Its memory. A new pod has none: it takes a backup at once, and goes on.
    - name: state
      emptyDir:
        sizeLimit: 64Mi
    {{- if .token.secretName }}
    - name: token
      secret:
        secretName: {{ .token.secretName | quote }}
        defaultMode: 0444
        items:
          - key: {{ .token.key | quote }}
            path: token
    {{- end }}
    {{- end }}
    {{- with .scratch }}
    - name: scratch
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            {{- with .storageClassName }}
            storageClassName: {{ . | quote }}
            {{- end }}
            resources:
              requests:
                storage: {{ .size }}
    {{- end }}
    {{- if $key }}
    - name: key
      secret:
        secretName: {{ $values.repository.sealed.secretName | quote }}
        # Where there is no group of the volume's, only a file for all in this container can be read.
        defaultMode: {{ if .datadir }}0444{{ else }}0440{{ end }}
        items:
          - key: {{ $values.repository.sealed.keyFile | quote }}
            path: key
    {{- end }}
    {{- if $profiles }}
    - name: profiles
      secret:
        secretName: {{ $profiles | quote }}
        defaultMode: 0440
        items:
          - key: {{ .copy.profiles.key | quote }}
            path: {{ .copy.profiles.key | quote }}
    {{- end }}
{{- end -}}

{{/* The spec of a job that runs haulout once: as haulout.pod. */}}
{{- define "haulout.job" -}}
backoffLimit: 3
ttlSecondsAfterFinished: 259200
# Tried again is what may go well another time. A person must look at the rest: wrong settings, damage, a wrong key, a server that
# refuses. 3 is done, with something to be read.
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes:
        containerName: haulout
        operator: In
        values: [2, 3, 10, 12, 20, 21, 23]
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
template:
  {{- include "haulout.pod" . | nindent 2 }}
{{- end -}}

{{/* A job by the clock: as haulout.job, and `component`, whose values have `schedule` and `suspend`. */}}
{{- define "haulout.cronjob" -}}
{{- $values := index .root.Values .component -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "haulout.name" .root }}-{{ .component }}
  labels:
    {{- include "haulout.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  schedule: {{ $values.schedule | quote }}
  suspend: {{ $values.suspend }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels:
        {{- include "haulout.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
    spec:
      {{- include "haulout.job" (merge (dict "resources" $values.resources) .) | nindent 6 }}
{{- end -}}
