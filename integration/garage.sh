#!/usr/bin/env bash
# A cluster of three Garage nodes on 127.0.0.1, each of which can be killed and come back.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

readonly garage_version=2.5.0
readonly nodes=(1 2 3)
readonly ready_seconds_max=60
# Keys of a cluster that nobody else reaches and that ends with its test.
readonly access_key=GK0123456789abcdef01234567
readonly secret_key=89abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567
readonly rpc_secret=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

usage() {
  cat <<USAGE
usage: integration/garage.sh install
       integration/garage.sh start --dir DIR [--until-exit-of PID]
       integration/garage.sh kill N... --dir DIR
       integration/garage.sh revive N... --dir DIR
       integration/garage.sh stop --dir DIR

install  builds Garage $garage_version where the cache has none: 15 to 30 minutes on two cores. Prints the program's path.
start    starts three nodes with three copies of everything and a bucket named "lab", waits until all are healthy, and prints
         what a client wants, as NAME=VALUE: endpoint of the first node, keys, region. DIR gets settings, data, logs.
         With --until-exit-of the nodes end soon after process PID has ended.
kill     kills nodes N (1 to 3) at once.
revive   starts them again and waits until all three are connected and the cluster is healthy.
stop     ends all nodes and removes DIR.
USAGE
}

program=$cache/garage-$garage_version/bin/garage

install() {
  if [ ! -x "$program" ]; then
    mkdir -p "$cache"
    exec {lock}>"$cache/garage.lock"
    flock "$lock"
    if [ ! -x "$program" ]; then
      find_cargo
      note "building Garage $garage_version (15 to 30 minutes)" >&2
      cargo install --quiet --locked --version "$garage_version" --root "$program.new" garage >&2
      mkdir -p "$(dirname "$program")"
      mv "$program.new/bin/garage" "$program"
      rm -rf "$program.new"
    fi
    exec {lock}>&-
  fi
  printf '%s\n' "$program"
}

# Runs Garage's command line for node $1.
garage() {
  local node=$1
  shift
  "$program" -c "$dir/$node/garage.toml" "$@" 2>>"$dir/$node/client.log"
}

# Prints ports that are free.
free_ports() {
  python3 -c 'import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in sockets: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))' "$1"
}

# Starts node $1, whose settings are there.
launch() {
  local node=$1
  RUST_LOG=garage=info setsid "$program" -c "$dir/$node/garage.toml" server >>"$dir/$node/log" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$dir/$node/pid"
}

# True when process $1 runs and is one of ours: after a reboot a pid file may name anything.
ours() {
  [ -n "$1" ] && kill -0 "$1" 2>/dev/null && tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$dir/"
}

# Waits until the command answers with success.
await() {
  local what=$1 deadline=$((SECONDS + ready_seconds_max))
  shift
  until "$@" >/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 20 "$dir"/*/log "$dir"/*/client.log >&2
      die "$what: not within $ready_seconds_max s"
    fi
    sleep 0.2
  done
}

# True when all nodes are connected to the first.
connected() { [ "$(garage 1 status | sed -n '/^==== HEALTHY NODES/,/^$/p' | grep -cE '^[0-9a-f]{16} ')" = 3 ]; }

healthy() {
  local ports
  ports=$(<"$dir/1/ports")
  # Braces, so that a refused connection says nothing.
  { exec {connection}<>"/dev/tcp/127.0.0.1/${ports##* }"; } 2>/dev/null || return 1
  printf 'GET /health HTTP/1.0\r\n\r\n' >&"$connection"
  head -n 1 <&"$connection" | grep -q ' 200 '
  local found=$?
  exec {connection}>&-
  return "$found"
}

start() {
  local node ports identity id layout=1
  install >/dev/null
  mkdir -p "$dir"
  for node in "${nodes[@]}"; do
    mkdir -p "$dir/$node"
    ports=$(free_ports 3)
    printf '%s\n' "$ports" >"$dir/$node/ports"
    read -r rpc api admin <<<"$ports"
    cat >"$dir/$node/garage.toml" <<TOML
metadata_dir = "$dir/$node/meta"
data_dir = "$dir/$node/data"
db_engine = "lmdb"
replication_factor = 3
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$rpc_secret"

[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$api"

[admin]
api_bind_addr = "127.0.0.1:$admin"
TOML
    launch "$node"
  done
  if [ -n "$watched" ]; then
    (
      while kill -0 "$watched"; do sleep 1; done
      stop
    ) >/dev/null 2>&1 </dev/null &
  fi
  for node in "${nodes[@]}"; do
    await "node $node's identity" garage "$node" node id -q
    identity=$(garage "$node" node id -q)
    [ "$node" = 1 ] || await "a connection to node $node" garage 1 node connect "$identity"
    id=${identity%%@*}
    await "node $node's place" garage 1 layout assign -z "zone$node" -c 10G "$id"
  done
  await "three connected nodes" meet
  await "a layout" garage 1 layout apply --version "$layout"
  await "a healthy cluster" healthy
  await "a key" garage 1 key import --yes -n lab "$access_key" "$secret_key"
  await "a bucket" garage 1 bucket create lab
  await "permissions" garage 1 bucket allow --read --write --owner lab --key lab
  read -r rpc api admin <"$dir/1/ports"
  printf 'AWS_ENDPOINT_URL=http://127.0.0.1:%s\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\nAWS_REGION=garage\n' \
    "$api" "$access_key" "$secret_key"
}

# Ends node $1 by signal $2 and waits until it is gone.
end() {
  local pid tries
  pid=$(cat "$dir/$1/pid" 2>/dev/null) || return 0
  ours "$pid" || return 0
  kill "-$2" "$pid"
  for ((tries = 0; tries < 50; tries++)); do
    ours "$pid" || return 0
    sleep 0.2
  done
  die "node $1, process $pid, does not end"
}

# Has the first node meet all others: by themselves they try again only every now and then.
meet() {
  local node
  for node in "${nodes[@]:1}"; do
    garage 1 node connect "$(garage "$node" node id -q)" || return
  done
  connected
}

revive() {
  local node
  for node in "$@"; do
    ours "$(<"$dir/$node/pid")" && die "node $node runs"
    launch "$node"
  done
  await "three connected nodes" meet
  await "a healthy cluster" healthy
}

stop() {
  local node
  for node in "${nodes[@]}"; do end "$node" KILL; done
  rm -rf "$dir"
}

command=${1-}
[ $# -gt 0 ] && shift
dir='' watched='' named=()
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=${2:?--dir wants a folder}; shift 2 ;;
    --until-exit-of) watched=${2:?--until-exit-of wants a pid}; shift 2 ;;
    [1-3]) named+=("$1"); shift ;;
    *) usage >&2; exit 2 ;;
  esac
done
case $command in
  install) install ;;
  start | kill | revive | stop)
    [ -n "$dir" ] || { usage >&2; exit 2; }
    case $command in kill | revive) [ "${#named[@]}" -gt 0 ] || { usage >&2; exit 2; } ;; esac
    dir=$(realpath -m "$dir")
    case $command in
      start) start ;;
      kill) for node in "${named[@]}"; do end "$node" KILL; done ;;
      revive) revive "${named[@]}" ;;
      stop) stop ;;
    esac
    ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
