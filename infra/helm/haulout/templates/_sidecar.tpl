{{/*
A container for the server's own pod, which backs it up by the clock, and the volumes that it wants there. There is no agent yet that runs
all the time, so a shell does, which ends only when it is told to: a container that ends makes the server's pod unready.
*/}}
{{- define "haulout.sidecar" -}}
{{- $values := .Values -}}
{{- $sealed := $values.repository.sealed -}}
{{- $args := concat (list "--no-progress" "backup" (printf "--spool-size=%s" $values.backup.spoolSize)) $values.backup.args -}}
- name: haulout
  image: "{{ $values.image.repository }}:{{ $values.image.tag | default .Chart.AppVersion }}"
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command:
    - /bin/sh
    - -c
    - |
      # Seconds from one backup's beginning to the next one's, and from a failure to the next try; then haulout's arguments.
      period=$1 again=$2 run= pause=
      shift 2
      stop() {
        trap '' TERM INT
        kill $run $pause 2>/dev/null
        wait
        exit 0
      }
      trap stop TERM INT
      while :; do
        sleep "$period" & pause=$!
        /usr/bin/haulout "$@" & run=$!
        wait "$run"
        code=$?
        run=
        case $code in
          0 | 3) ;;
          *)
            echo "haulout ended with $code, and is run again in $again s" >&2
            kill "$pause"
            sleep "$again" & pause=$! ;;
        esac
        wait "$pause"
      done
    - haulout
    - {{ $values.sidecar.periodSeconds | quote }}
    - {{ $values.sidecar.retrySeconds | quote }}
  args:
    {{- toYaml $args | nindent 4 }}
  env:
    {{- include "haulout.environment" (dict "root" .) | nindent 4 }}
    {{- include "haulout.server" . | trim | nindent 4 }}
  {{- with $values.roles.agent.credentialsSecret }}
  envFrom:
    - secretRef:
        name: {{ . | quote }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $values.server.uid }}
    runAsGroup: {{ $values.server.gid }}
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  resources:
    {{- toYaml $values.backup.resources | nindent 4 }}
  volumeMounts:
    - name: haulout-cache
      mountPath: /var/cache/haulout
    - name: {{ $values.sidecar.datadirVolume | quote }}
      mountPath: {{ $values.server.mountPath | quote }}
      {{- with $values.server.subPath }}
      subPath: {{ . | quote }}
      {{- end }}
      readOnly: true
    {{- if and $values.server.socket $values.sidecar.socketVolume }}
    - name: {{ $values.sidecar.socketVolume | quote }}
      mountPath: {{ dir $values.server.socket | quote }}
      readOnly: true
    {{- end }}
    {{- if and $sealed.secretName $sealed.keyFile }}
    - name: haulout-key
      mountPath: /etc/haulout
      readOnly: true
    {{- end }}
{{- end -}}

{{- define "haulout.sidecarVolumes" -}}
{{- $sealed := .Values.repository.sealed -}}
- name: haulout-cache
  emptyDir:
    sizeLimit: {{ .Values.backup.cacheSize }}
{{- if and $sealed.secretName $sealed.keyFile }}
- name: haulout-key
  secret:
    secretName: {{ $sealed.secretName | quote }}
    # The volume's group is the server's pod's affair.
    defaultMode: 0444
    items:
      - key: {{ $sealed.keyFile | quote }}
        path: key
{{- end }}
{{- end -}}
