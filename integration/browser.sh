#!/usr/bin/env bash
# Opens the page of simulated fleets of 1, 50 and 1,000 servers in Debian's chromium: consoles, timeline, accessibility (axe-core), keyboard,
# phone width, and a drill that is started and watched. Screenshots go to integration/out.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/browser.sh [--out DIR] [--servers N]

--out DIR    where screenshots go [default: integration/out]
--servers N  size of the largest fleet [default: 1000]
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
command -v npm >/dev/null || die "npm is missing: run integration/setup.sh --ci"
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
pids=()
clean() {
  [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap clean EXIT

cd "$here/.."
program=$(cargo build --locked --bench fleet --message-format json | sed -n 's/.*"name":"fleet".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || die "the fleet's program was not built"
cp integration/browser/package.json integration/browser/package-lock.json integration/browser/page.mjs "$work"
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
