#!/usr/bin/env bash
# Measures the page of a simulated fleet: time until every repository was read, time of the fleet's page and of the JSON API when it was, and
# memory, held against what is wanted: at most 2 s and 256 MiB.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/fleet_bench.sh [--servers N] [--backups N]

--servers N  repositories under one place [default: 1000]
--backups N  backups of each [default: 35]
USAGE
}

servers=1000 backups=35
while [ $# -gt 0 ]; do
  case $1 in
    --servers) servers=$2; shift 2 ;;
    --backups) backups=$2; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
find_cargo
cd "$top"
run cargo build --locked --release
fleet=$(cargo build --locked --release --bench fleet --message-format json |
  sed -n 's/.*"name":"fleet".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

work=$(mktemp -d)
pid=
clean() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  rm -rf "$work"
}
trap clean EXIT
"$fleet" "$work/fleet" "$servers" "$backups"

began=$(now)
"$target/release/haulout" --json --repo "file://$work/fleet" serve --listen 127.0.0.1:0 >"$work/said" &
pid=$!
until [ -s "$work/said" ]; do read -r -t 0.05 <> <(:) || true; done
url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$work/said")
first=$(curl -s -o "$work/page" -w '%{time_total}' "$url")
until curl -sf -o "$work/ready" "${url}readyz"; do read -r -t 0.1 <> <(:) || true; done
cold=$(seconds_between "$began" "$(now)")
times=()
for _ in 1 2 3 4 5; do times+=("$(curl -s -o "$work/page" -w '%{time_total}' "$url")"); done
warm=$(printf '%s\n' "${times[@]}" | sort -n | sed -n 3p)
api=$(curl -s -o "$work/api" -w '%{time_total}' "${url}api/v1/fleet")
peak=$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status")
lists=$(curl -s "${url}metrics" | sed -n 's/^haulout_fleet_store_requests_total{operation="list"} //p')
gets=$(curl -s "${url}metrics" | sed -n 's/^haulout_fleet_store_requests_total{operation="get"} //p')
heading "$servers servers with $backups backups each"
note "first page while nothing is read   $first s"
note "until all are read                 $cold s ($lists listings, $gets reads)"
note "page of the fleet, warm (median)   $warm s (wanted: 2)"
note "the same as JSON                   $api s"
note "peak memory                        $peak MiB (wanted: 256)"
awk -v warm="$warm" -v peak="$peak" 'BEGIN { exit warm > 2 || peak > 256 }' || die "missed"
