# shellcheck shell=bash
# Sourced by the scripts here: where things are, how commands are shown, and a scratch server.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by the scripts that source this
cache=${HAULOUT_CACHE:-${HOME:?HOME or HAULOUT_CACHE must be set}/.cache/haulout}
# shellcheck disable=SC2034
target=${CARGO_TARGET_DIR:-$top/target}
# Servers live in sbin, which is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

heading() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Shows a command and runs it.
run() {
  {
    printf '$'
    printf ' %q' "$@"
    printf '\n'
  } >&2
  "$@"
}

# Runs a command and keeps what it says in $scratch/said, for the case that it fails.
quiet() {
  "$@" >"${scratch:?}/said" 2>&1 || {
    tail -n 40 "$scratch/said" >&2
    die "failed: $*"
  }
}

find_cargo() {
  if ! command -v cargo >/dev/null && [ -e "$HOME/.cargo/env" ]; then
    # shellcheck disable=SC1091
    . "$HOME/.cargo/env"
  fi
  command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
}

# Puts haulout on the PATH: HAULOUT_BIN, or a build for release.
find_haulout() {
  find_cargo
  if [ -n "${HAULOUT_BIN-}" ]; then
    PATH=$(dirname "$HAULOUT_BIN"):$PATH
  else
    run cargo build --release --locked --manifest-path "$top/Cargo.toml"
    PATH=$target/release:$PATH
  fi
}

# Seconds since the epoch with six decimals.
now() { printf '%s' "$EPOCHREALTIME"; }

# Seconds from $1 to $2 with two decimals.
seconds_between() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", b - a }'; }

# The account that servers run as: root may not, unless it insists.
server_account() {
  if [ "$(id -u)" != 0 ]; then
    id -un
  elif id -u mysql >/dev/null 2>&1; then
    echo mysql
  else
    echo nobody
  fi
}

# Makes the folder beside datadir $1 for what its server writes while it runs: log, socket, temporary tables. Each server
# needs its own: one that starts removes all temporary tables that it finds, another server's too.
make_run_folder() { install -d -o "$(server_account)" "$1.run"; }

# Makes an empty datadir $1.
make_datadir() {
  make_run_folder "$1"
  mariadb-install-db --no-defaults --datadir="$1" --user="$(server_account)" --tmpdir="$1.run" --skip-test-db \
    --auth-root-authentication-method=normal --skip-name-resolve >"$1.run/install.log" 2>&1 ||
    { cat "$1.run/install.log" >&2 && die "mariadb-install-db failed"; }
}

# Starts a server on datadir $1 with socket $2 and further options, waits until it answers, sets `server_pid`.
start_server() {
  local datadir=$1 socket=$2 deadline=$((SECONDS + 120))
  shift 2
  make_run_folder "$datadir"
  mariadbd --no-defaults --datadir="$datadir" --socket="$socket" --skip-networking --user="$(server_account)" \
    --tmpdir="$datadir.run" --log-error="$datadir.run/error.log" --pid-file="$datadir.run/pid" "$@" 2>/dev/null &
  server_pid=$!
  until mariadb --no-defaults --socket="$socket" --user=root --execute='SELECT 1' >/dev/null 2>&1; do
    if ! kill -0 "$server_pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 30 "$datadir.run/error.log" >&2
      die "the server did not start"
    fi
    sleep 0.2
  done
}

# Stops the server of `server_pid` with signal $1 (TERM) and waits until it is gone.
stop_server() {
  [ -n "${server_pid-}" ] || return 0
  kill "-${1:-TERM}" "$server_pid" 2>/dev/null || true
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# SQL of the arguments, or of standard input, on socket `socket`.
sql() {
  if [ $# -gt 0 ]; then
    mariadb --no-defaults --socket="${socket:?}" --user=root --batch --skip-column-names --execute="$*"
  else
    mariadb --no-defaults --socket="${socket:?}" --user=root --batch --skip-column-names
  fi
}

# One line for each table that is not the server's own: its name and its checksum.
checksums() {
  local tables
  tables=$(sql "SELECT GROUP_CONCAT('\`', table_schema, '\`.\`', table_name, '\`' ORDER BY 1)
    FROM information_schema.tables WHERE table_type = 'BASE TABLE'
    AND table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')")
  [ "$tables" = NULL ] || sql "CHECKSUM TABLE $tables EXTENDED"
}

# Writes into folder $1 a token, and the settings of an agent that looks after the server on socket `socket`: with the repository at URL $2, a
# page at address $3, and what standard input has further. Sets `agent_folder` and `agent_page`.
write_agent_settings() {
  agent_folder=$1 agent_page=http://$3
  (umask 077 && head -c 24 /dev/urandom | base64 >"$agent_folder/token")
  {
    cat <<TOML
[repository]
url = "$2"

[mariadb]
socket = "${socket:?}"
user = "root"

[agent]
name = "shop"
listen = "$3"
state_dir = "$agent_folder/state"

[serve]
token_file = "$agent_folder/token"

[agent.archive]
enabled = true

[drill]
scratch = "$agent_folder/drill"

TOML
    cat
  } >"$agent_folder/haulout.toml"
}

# Starts the agent of these settings, sets `agent_pid`.
start_agent() {
  haulout --config "$agent_folder/haulout.toml" agent 2>"$agent_folder/agent.log" &
  agent_pid=$!
}

# Ends it as systemd does.
stop_agent() {
  kill "${agent_pid:?}"
  wait "$agent_pid" || die "FAILED: the agent did not end well"
  unset agent_pid
}

# What the agent's page answers at address $1 of its API, from which jq takes $2.
asked() { curl --silent --fail --max-time 10 "$agent_page/api/v1/$1" | jq -e -r "$2"; }

# Waits for at most three minutes until that is as expression $2 wants it; $3 says what is wrong if it never is.
await() {
  local began=$SECONDS
  until asked "$1" "$2" >/dev/null 2>&1; do
    [ $((SECONDS - began)) -lt 180 ] || { tail -n 20 "$agent_folder/agent.log" >&2 && die "FAILED: $3"; }
    kill -0 "$agent_pid" 2>/dev/null || { tail -n 20 "$agent_folder/agent.log" >&2 && die "FAILED: the agent has ended"; }
    read -r -t 0.2 <> <(:) || true
  done
}
