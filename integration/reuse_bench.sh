#!/usr/bin/env bash
# What `restore --reuse` of an unchanged datadir fetches, beside a whole restore, and how long it takes, beside reading the datadir once.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Bytes fetched, beside those of a whole restore; and seconds without the prepare, beside those of reading.
readonly most_fetched=0.01 most_time=1.2
readonly tables=8

usage() {
  cat <<USAGE
usage: integration/reuse_bench.sh [--size GIB] [--runs N]

--size  least size of the tables, in GiB (1)
--runs  how often each side is measured (3); the two take turns, and begin with a cold cache

Needs about four times --size of free space in \${TMPDIR:-/tmp}. Writes integration/out/reuse_bench.json, and prints it as a table.
Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already (built for release).
USAGE
}

size=1 runs=3
while [ $# -gt 0 ]; do
  case $1 in
    --size) size=${2:?--size wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $size =~ ^[0-9]+(\.[0-9]+)?$ && $runs =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-reuse.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
restored=$scratch/restored
socket=$datadir.run/socket
records=$scratch/records.jsonl
cleanup() {
  stop_server KILL
  rm -rf "$scratch"
}
trap cleanup EXIT

# Restores over the datadir, and leaves the command's summary in $summary.
restore() {
  quiet haulout --json --repo "$repository" restore --datadir "$restored" "$@"
  summary=$(jq -c 'select(.message_type == "summary")' "$scratch/said" | tail -n 1)
  rm -rf "$restored.haulout-aside"
}

# Has the kernel forget what it knows of the datadir's files.
forget() {
  sync
  find "$restored" -type f -exec dd if={} of=/dev/null iflag=nocache count=0 status=none \;
}

# As many readers as haulout has, and as much at a time.
read_once() {
  find "$restored" -type f -print0 | xargs -0 -P "$(nproc)" -I '{}' dd if='{}' of=/dev/null bs=1M status=none
}

heading "setting up"
"$top/integration/setup.sh"
find_haulout
unset HAULOUT_REPO HAULOUT_CONFIG
repository=file://$scratch/repository

heading "filling $tables tables with at least $size GiB"
make_datadir "$datadir"
start_server "$datadir" "$socket" --innodb-buffer-pool-size=512M --innodb-log-file-size=256M --innodb-flush-log-at-trx-commit=0 \
  --performance-schema=OFF
sql 'CREATE DATABASE bench'
# A row with its index takes about 220 bytes.
rows=$(awk -v size="$size" -v tables=$tables 'BEGIN { printf "%d", size * 1073741824 / tables / 220 }')
for ((table = 1; table <= tables; table++)); do
  # Only with a schema of one's own does the server know of seq_1_to_….
  sql "USE bench; CREATE TABLE bench.t$table (id INT PRIMARY KEY, k INT, c CHAR(120), pad CHAR(60), KEY (k)) CHARSET latin1;
    INSERT INTO bench.t$table SELECT seq, FLOOR(RAND(seq) * $rows), SHA2(seq, 384), SHA1(seq) FROM seq_1_to_$rows"
done
# A server that has just started has written all its pages: the backup's redo log is short, as that of an idle server.
stop_server
start_server "$datadir" "$socket" --innodb-buffer-pool-size=512M --innodb-log-file-size=256M --performance-schema=OFF
quiet haulout --repo "$repository" init
quiet haulout --repo "$repository" backup --socket "$socket" --user root
stop_server
rm -rf "$datadir"

heading "restores over an unchanged datadir, and readings of it"
restore
whole=$(jq .fetched_bytes <<<"$summary")
bytes=$(du -sb "$restored" | cut -f 1)
for ((turn = 1; turn <= runs; turn++)); do
  forget
  start=$(now)
  read_once
  reading=$(awk -v start="$start" -v end="$(now)" 'BEGIN { print end - start }')
  forget
  restore --reuse
  jq -c --argjson reading "$reading" --argjson whole "$whole" \
    '{$reading, reuse: (.seconds - .steps.prepare), time: ((.seconds - .steps.prepare) / $reading), fetched_bytes, reused_bytes,
      fetched: (.fetched_bytes / $whole), steps}' <<<"$summary" | tee -a "$records" >&2
done

heading "figures"
mkdir -p "$top/integration/out"
jq -s --argjson most_fetched "$most_fetched" --argjson most_time "$most_time" --argjson whole "$whole" --argjson bytes "$bytes" \
  --argjson cores "$(nproc)" --arg haulout "$(haulout --version)" --arg tool "$(mariadbd --version)" '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def digits($n): . * $n | round / $n;
  {haulout: $haulout, tool: $tool, cores: $cores, datadir_bytes: $bytes, runs: length, whole_restore_fetches: $whole,
   targets: {fetched: $most_fetched, time: $most_time},
   fetched_bytes: (map(.fetched_bytes) | max), fetched: (map(.fetched) | max | digits(100000)),
   reading_seconds: (map(.reading) | median | digits(100)), reuse_seconds: (map(.reuse) | median | digits(100)),
   time: (map(.time) | median | digits(100)), time_least: (map(.time) | min | digits(100)),
   time_most: (map(.time) | max | digits(100)),
   met: {fetched: ((map(.fetched) | max) < $most_fetched), time: ((map(.time) | median) <= $most_time)}}' \
  "$records" >"$top/integration/out/reuse_bench.json"
jq -r 'def verdict: if . then "met" else "MISSED" end;
  "| | restore --reuse | beside | ratio (least–most) | target | |", "|---|---:|---:|---:|---:|---|",
  "| bytes fetched | \(.fetched_bytes) | \(.whole_restore_fetches) | \(.fetched) | < \(.targets.fetched) | \(.met.fetched | verdict) |",
  "| seconds without the prepare, beside reading once | \(.reuse_seconds) | \(.reading_seconds) | \(.time) (\(.time_least)–\(.time_most)) | ≤ \(.targets.time) | \(.met.time | verdict) |",
  "\n\(.haulout) with \(.tool)",
  "\(.datadir_bytes / 1073741824 * 100 | round / 100) GiB, \(.cores) cores, \(.runs) runs"' \
  "$top/integration/out/reuse_bench.json"
note "written to integration/out/reuse_bench.json"
