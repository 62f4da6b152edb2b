#!/usr/bin/env bash
# Runs the LocalStack of compose.yaml without Docker, on 127.0.0.1 only.
set -euo pipefail

readonly localstack_version=4.14.0
readonly moto_version=5.2.5
readonly pip_version=25.3
readonly ready_seconds_max=180

usage() {
  cat <<USAGE
usage: localstack/run.sh start [--port N] [--dir DIR] [--until-exit-of PID]
       localstack/run.sh stop [--port N] [--dir DIR]
       localstack/run.sh bucket NAME [--port N] [--dir DIR]
       localstack/run.sh install

start    installs what is missing, starts the server, waits until it is healthy and prints its endpoint.
         --port 0 takes a free port. DIR (default /tmp/haulout-localstack-PORT) gets the pid file, the endpoint,
         the log and the data. With --until-exit-of the server ends by itself soon after process PID has ended.
stop     stops the server whose pid file is in DIR.
bucket   creates bucket NAME on the server of DIR.
install  installs only.

Keys: test / test, any region. The virtual environment is kept under \${HAULOUT_CACHE:-~/.cache/haulout}.
USAGE
}

say() { printf 'localstack: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

cache=${HAULOUT_CACHE:-${HOME:?HOME or HAULOUT_CACHE must be set}/.cache/haulout}

# Prints the first Python from version 3.$1 to 3.13 that can make virtual environments.
# LocalStack 4.14 imports `warnings.deprecated`, which came with 3.13; 3.14 has not been tried.
find_python() {
  local least=$1 candidate
  shopt -s nullglob
  for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3 "$HOME"/.local/bin/python3.13 \
    /usr/local/bin/python3.13 /opt/python*/bin/python3 python3 /usr/bin/python3; do
    # A version manager's shim can be on PATH and yet refuse to run, so each candidate is asked.
    if "$candidate" -c "import sys, ensurepip, venv; sys.exit(not (3, $least) <= sys.version_info[:2] <= (3, 13))" \
      >/dev/null 2>&1; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

# Prints the Python of another Debian release that is unpacked for the purpose, if this is a Debian.
unpack_python() {
  [ -n "$(command -v apt-get)" ] || return
  say "no Python 3.13 here: unpacking Debian trixie's"
  "$(dirname "$0")/../integration/python.sh"
}

# Makes virtual environment $1 with Python $2; the rest are pip's arguments. The stamp comes last, so that an
# interrupted installation is begun anew. A Python without pip is filled by the pip of another.
install_venv() {
  local venv=$1 python=$2 filler pip
  shift 2
  [ -e "$venv/.complete" ] && return
  say "installing into $venv with $python (about a minute)"
  rm -rf "$venv"
  mkdir -p "$venv"
  if "$python" -c 'import ensurepip; ensurepip.version()' >/dev/null 2>&1; then
    "$python" -m venv "$venv"
    pip=("$venv/bin/pip")
  else
    filler=$(find_python 9) || return
    "$filler" -m venv "$venv/filler"
    # Debian bookworm's own does not know Python 3.13.
    "$venv/filler/bin/pip" install --quiet --disable-pip-version-check "pip==$pip_version" >&2 || return
    "$python" -m venv --without-pip "$venv"
    pip=("$venv/filler/bin/pip" --python "$venv/bin/python")
  fi
  printf '%s\n' 'cbor2<6' 'pyopenssl==25.3.0' 'cryptography<46' >"$venv/constraints.txt"
  "${pip[@]}" install --quiet --disable-pip-version-check -c "$venv/constraints.txt" "$@" >&2 || return
  rm -rf "$venv/filler"
  touch "$venv/.complete"
}

# An environment made by hand has no stamp; it is kept when it holds this version and can be imported.
adopt_venv() {
  local venv=$1
  [ -e "$venv/.complete" ] && return
  [ -x "$venv/bin/python" ] || return 0
  if "$venv/bin/python" -c "
import importlib.metadata, sys, localstack.services.s3.provider
sys.exit(importlib.metadata.version('localstack-core') != '$localstack_version')" >/dev/null 2>&1; then
    touch "$venv/.complete"
  fi
}

# Sets `kind` and `venv` to what runs here, installing it first where need be.
install() {
  local python
  mkdir -p "$cache"
  venv=$cache/localstack-$localstack_version
  kind=localstack
  exec {lock}>"$cache/install.lock"
  flock "$lock"
  adopt_venv "$venv"
  if [ ! -e "$venv/.complete" ]; then
    if python=$(find_python 13 || unpack_python) &&
      install_venv "$venv" "$python" "localstack-core[base-runtime]==$localstack_version" 'moto-ext[s3]==5.1.54' \
        service-identity==24.2.0; then
      :
    elif python=$(find_python 9); then
      kind=moto
      venv=$cache/moto-$moto_version
      say "WARNING: LocalStack $localstack_version needs Python 3.13, which was not to be had: moto $moto_version takes its place."
      say "WARNING: moto does not refuse wrong checksums and knows Object Lock only in part."
      say "For LocalStack itself install such a Python, or use Docker (see localstack/compose.yaml)."
      install_venv "$venv" "$python" "moto[server,s3]==$moto_version"
    else
      die "no Python with venv and ensurepip found; on Debian: apt-get install python3-venv"
    fi
  fi
  exec {lock}>&-
}

# Prints the answer to an HTTP request without a body, in bash alone.
request() {
  local method=$1 port=$2 path=$3 connection
  # The braces let the error of a refused connection be hidden too.
  {
    exec {connection}<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' \
      "$method" "$path" "$port" >&"$connection"
    timeout 30 cat <&"$connection"
    exec {connection}>&-
  } 2>/dev/null
}

healthy() {
  case $kind in
    localstack) (request GET "$1" /_localstack/health) | grep -q '"s3": *"running"' ;;
    moto) (request GET "$1" /moto-api/) | grep -q '^HTTP/1.. 200' ;;
  esac
}

# True when process $1 runs and is one of ours: after a reboot a pid file may name anything.
ours() {
  [ -n "$1" ] && kill -0 "$1" 2>/dev/null &&
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qE 'localstack\.runtime\.main|moto_server'
}

start() {
  local pid deadline
  install
  if [ "$port" = 0 ]; then
    port=$("$venv/bin/python" -c \
      'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  elif (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    die "port $port is in use; stop what listens there, or give --port"
  fi
  dir=${dir:-/tmp/haulout-localstack-$port}
  mkdir -p "$dir/data" "$dir/tmp"
  if [ -s "$dir/pid" ] && ours "$(<"$dir/pid")"; then
    die "$dir belongs to a server that runs (pid $(<"$dir/pid"))"
  fi
  rm -f "$dir/pid" "$dir/endpoint"
  case $kind in
    localstack)
      # The default server listens on all addresses whatever GATEWAY_LISTEN says; hypercorn obeys.
      SERVICES=s3 EAGER_SERVICE_LOADING=1 S3_SKIP_SIGNATURE_VALIDATION=0 GATEWAY_SERVER=hypercorn \
        GATEWAY_LISTEN=127.0.0.1:$port DISABLE_EVENTS=1 SKIP_SSL_CERT_DOWNLOAD=1 DNS_ADDRESS=0 \
        LOCALSTACK_VOLUME_DIR=$dir/data FILESYSTEM_ROOT=$dir/data TMPDIR=$dir/tmp \
        setsid "$venv/bin/python" -m localstack.runtime.main >"$dir/log" 2>&1 </dev/null &
      ;;
    moto)
      TMPDIR=$dir/tmp setsid "$venv/bin/python" "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" \
        >"$dir/log" 2>&1 </dev/null &
      ;;
  esac
  pid=$!
  printf '%s\n' "$pid" >"$dir/pid"
  printf 'http://127.0.0.1:%s\n' "$port" >"$dir/endpoint"
  if [ -n "$watched" ]; then
    (
      while kill -0 "$watched" && kill -0 "$pid"; do sleep 1; done
      stop
    ) >/dev/null 2>&1 </dev/null &
  fi
  deadline=$((SECONDS + ready_seconds_max))
  until healthy "$port"; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 30 "$dir/log" >&2
      end "$pid"
      die "the server did not become healthy; its log is $dir/log"
    fi
    sleep 0.3
  done
  say "$kind runs: pid $pid, log $dir/log"
  cat "$dir/endpoint"
}

# Ends process $1 and waits until it is gone.
end() {
  local pid=$1 tries
  for signal in TERM KILL; do
    ours "$pid" || return 0
    kill "-$signal" "$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 50; tries++)); do
      ours "$pid" || return 0
      sleep 0.2
    done
  done
  die "process $pid does not end"
}

stop() {
  dir=${dir:-/tmp/haulout-localstack-$port}
  local pid
  if ! pid=$(cat "$dir/pid" 2>/dev/null); then
    say "nothing runs in $dir"
    return
  fi
  end "$pid"
  rm -rf "$dir/pid" "$dir/endpoint" "$dir/data" "$dir/tmp"
}

bucket() {
  dir=${dir:-/tmp/haulout-localstack-$port}
  local answer
  [ -s "$dir/endpoint" ] || die "nothing runs in $dir"
  answer=$(request PUT "$(sed 's/.*://' "$dir/endpoint")" "/$1")
  [[ $answer == HTTP/1.?\ 200* ]] || die "bucket $1 was refused: $answer"
}

command=${1-}
[ $# -gt 0 ] && shift
port=4566 dir='' watched='' name=''
while [ $# -gt 0 ]; do
  case $1 in
    --port) port=${2:?--port wants a number}; shift 2 ;;
    --dir) dir=${2:?--dir wants a folder}; shift 2 ;;
    --until-exit-of) watched=${2:?--until-exit-of wants a pid}; shift 2 ;;
    -*) usage >&2; exit 2 ;;
    *) name=$1; shift ;;
  esac
done
case $command in
  start) start ;;
  stop) stop ;;
  bucket) bucket "${name:?bucket wants a name}" ;;
  install) install ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
