#!/usr/bin/env bash
# What an agent costs that waits: memory and processor time, of itself and of the archiver that it looks after.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# MiB, and percent of a core.
readonly memory_most=30 cpu_most=0.1

usage() {
  cat <<USAGE
usage: integration/agent_bench.sh [--seconds N]

--seconds  how long the agent is watched (180)

Writes integration/out/agent_bench.json, and prints it as a table.
Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already (built for release).
USAGE
}

seconds=180
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds wants a number}; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-agent.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
agent=
cleanup() {
  # Its runs end with it.
  [ -z "$agent" ] || kill -KILL "$agent" 2>/dev/null || true
  stop_server KILL
  rm -rf "$scratch"
}
trap cleanup EXIT
exec {nobody}<> <(:)

# Processor time of process $1 alone, in clock ticks.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
# Memory of process $1 that field $2 of its status tells, in KiB.
memory() { awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/status"; }

heading "setting up"
"$top/integration/setup.sh"
command -v jq >/dev/null || die "jq is missing: on Debian, apt-get install jq"
find_haulout
unset HAULOUT_REPO HAULOUT_CONFIG
make_datadir "$datadir"
start_server "$datadir" "$socket" --innodb-buffer-pool-size=64M --log-bin="$datadir/binlog" --server-id=1
quiet haulout --repo "file://$scratch/repository" init
# Half a day from now: nothing but waiting is measured.
hour=$(((10#$(date -u +%H) + 12) % 24))
cat >"$scratch/haulout.toml" <<TOML
[repository]
url = "file://$scratch/repository"
[mariadb]
socket = "$socket"
user = "root"
[agent]
time_zone = "UTC"
listen = "127.0.0.1:0"
state_dir = "$scratch/state"
[agent.backup]
schedule = "0 $hour * * *"
[agent.archive]
enabled = true
[agent.check]
schedule = "30 $hour * * *"
everything_within = "30d"
[agent.drill]
schedule = "0 $hour * * *"
[drill]
scratch = "$scratch/drill"
[agent.prune]
schedule = "30 $hour * * *"
[prune]
keep_last = 3
[agent.webhooks]
urls = ["http://127.0.0.1:9/"]
TOML
haulout --config "$scratch/haulout.toml" agent 2>"$scratch/agent.log" &
agent=$!
deadline=$((SECONDS + 120))
until grep -q 'run 1 ended: Backup succeeded' "$scratch/agent.log"; do
  ((SECONDS < deadline)) || die "no backup: $(cat "$scratch/agent.log")"
  read -r -t 0.5 -u "$nobody" || true
done
archiver=$(pgrep -P "$agent") || die "no archiver runs"

heading "watching it for $seconds seconds"
before=$(ticks "$agent") archiver_before=$(ticks "$archiver")
read -r -t "$seconds" -u "$nobody" || true
after=$(ticks "$agent") archiver_after=$(ticks "$archiver")
share() { awk -v ticks="$1" -v hertz="$(getconf CLK_TCK)" -v took="$seconds" 'BEGIN { printf "%.3f", 100 * ticks / hertz / took }'; }
mebibytes() { awk -v kibibytes="$1" 'BEGIN { printf "%.1f", kibibytes / 1024 }'; }

heading "figures"
mkdir -p "$top/integration/out"
jq -n --arg haulout "$(haulout --version)" --argjson seconds "$seconds" \
  --argjson memory "$(mebibytes "$(memory "$agent" VmRSS)")" --argjson peak "$(mebibytes "$(memory "$agent" VmHWM)")" \
  --argjson cpu "$(share $((after - before)))" \
  --argjson archiver_memory "$(mebibytes "$(memory "$archiver" VmRSS)")" --argjson archiver_cpu "$(share $((archiver_after - archiver_before)))" \
  --argjson memory_most $memory_most --argjson cpu_most $cpu_most '
  {haulout: $haulout, seconds: $seconds, agent_mebibytes: $memory, agent_peak_mebibytes: $peak, memory_met: ($memory <= $memory_most),
   agent_cpu_percent: $cpu, cpu_met: ($cpu <= $cpu_most), archiver_mebibytes: $archiver_memory, archiver_cpu_percent: $archiver_cpu}' \
  >"$top/integration/out/agent_bench.json"
jq -r '"| what | measured | target | |", "|---|---:|---:|---|",
  "| memory of the agent, MiB | \(.agent_mebibytes) | ≤ '$memory_most' | \(if .memory_met then "met" else "MISSED" end) |",
  "| processor time of the agent, % of a core | \(.agent_cpu_percent) | ≤ '$cpu_most' | \(if .cpu_met then "met" else "MISSED" end) |",
  "| memory of its archiver, MiB | \(.archiver_mebibytes) | – | |",
  "| processor time of its archiver, % of a core | \(.archiver_cpu_percent) | – | |"' "$top/integration/out/agent_bench.json"
