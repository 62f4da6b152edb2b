#!/usr/bin/env bash
# Opens the page of simulated fleets of 1, 50 and 1,000 servers in Debian's chromium: consoles, timeline, accessibility (axe-core), keyboard,
# phone width, and a drill that is started and watched; then the page of an agent beside a MariaDB server, from which a backup and a drill are
# begun. Screenshots go to integration/out.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/browser.sh [--out DIR] [--servers N]

--out DIR    where screenshots go [default: integration/out]
--servers N  size of the largest fleet [default: 1000]

Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already.
USAGE
}

here=$(cd "$(dirname "$0")" && pwd) out=$here/out servers=1000
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift 2 ;;
    --servers) servers=$2; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
chromium=$(command -v chromium) || die "chromium is missing: run integration/setup.sh --ci"
for program in npm jq; do
  command -v "$program" >/dev/null || die "$program is missing: run integration/setup.sh --ci"
done
mkdir -p "$out"

# Waits for at most a minute for a command to succeed.
wait_for() {
  local what=$1 began=$SECONDS
  shift
  until "$@"; do
    [ $((SECONDS - began)) -lt 60 ] || die "$what did not come within a minute"
    read -r -t 0.1 <> <(:) || true
  done
}

work=$(mktemp -d)
# As root the server runs as another account, which must get in here.
chmod 755 "$work"
pids=()
clean() {
  [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  [ -z "${agent_pid-}" ] || { kill "$agent_pid" && wait "$agent_pid"; } 2>/dev/null || true
  stop_server KILL
  rm -rf "$work"
}
trap clean EXIT

cd "$here/.."
program=$(cargo build --locked --bench fleet --message-format json | sed -n 's/.*"name":"fleet".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || die "the fleet's program was not built"
cp integration/browser/package.json integration/browser/package-lock.json integration/browser/*.mjs "$work"
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent)

token=$(head -c 24 /dev/urandom | base64)
addresses=()
for size in 1 50 "$servers"; do
  "$program" "$work/fleet-$size" "$size" "$([ "$size" -gt 50 ] && echo 8 || echo 35)" >/dev/null
  if [ "$size" = 1 ]; then
    "$program" serve "$work/fleet-$size" "$token" >"$work/address-$size" &
  else
    "$program" serve "$work/fleet-$size" >"$work/address-$size" &
  fi
  pids+=("$!")
  wait_for "the page of $size" test -s "$work/address-$size"
  address=$(cat "$work/address-$size")
  addresses+=("$address")
  wait_for "all of $size" curl -sf -o "$work/ready" "$address/readyz"
done
node "$work/page.mjs" "$chromium" "$out" "$token" "${addresses[@]}"
kill "${pids[@]}"
pids=()

# A server whose backups and drills take some seconds, because the line is slow: there is something to see.
if [ -z "${HAULOUT_BIN-}" ]; then
  cargo build --locked --quiet --bin haulout
  export HAULOUT_BIN=$target/debug/haulout
fi
find_haulout
datadir=$work/data socket=$work/data.run/socket
make_datadir "$datadir"
start_server "$datadir" "$socket" --log-bin --server-id=1 --innodb-log-file-size=96M
pictures() { sql "INSERT INTO shop.picture SELECT seq, RANDOM_BYTES(1000) FROM shop.seq_$1_to_$2"; }
sql "CREATE DATABASE shop; CREATE TABLE shop.picture (id INT PRIMARY KEY, bytes BLOB)"
pictures 1 20000
port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
# On no day while this runs.
write_agent_settings "$work" "file://$work/repository" "127.0.0.1:$port" <<TOML
[s3]
limit_upload = "6MiB"
limit_download = "4MiB"

[agent.backup]
schedule = "0 3 $(date --utc --date='yesterday' +'%-d %-m') *"

[agent.drill]
schedule = "0 3 $(date --utc --date='yesterday' +'%-d %-m') *"
TOML
scratch=$work quiet haulout --repo "file://$work/repository" init
start_agent
await runs '[.recent[] | select(.job == "backup" and .outcome == "succeeded")] | length == 1' "no backup came"
await fleet '.servers[0].backups == 1' "the page does not know of the backup"
pictures 20001 60000
node "$work/agent.mjs" "$chromium" "$out" "$(cat "$work/token")" "$agent_page"
[ "$(asked fleet '.servers[0].backups')" = 2 ] || die "FAILED: there are not two backups"
stop_agent
