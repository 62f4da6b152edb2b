#!/usr/bin/env bash
# What a drill takes beyond the parts that it is made of: fetch, prepare and start, done by hand with a stopwatch, and CHECK TABLE.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# All of a drill but CHECK TABLE, beside fetch + prepare + start by hand.
readonly most=1.1
readonly tables=8

usage() {
  cat <<USAGE
usage: integration/drill_bench.sh [--size GIB] [--runs N]

--size  least size of the tables, in GiB (1)
--runs  how often each side is measured (3); the two take turns

Needs about four times --size of free space in \${TMPDIR:-/tmp}. Writes integration/out/drill_bench.json, and prints it as a table.
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

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-drill.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
records=$scratch/records.jsonl
cleanup() {
  stop_server KILL
  rm -rf "$scratch"
}
trap cleanup EXIT

# Runs the command $2… and adds its seconds to variable $1.
timed() {
  local -n sum=$1
  local start
  shift
  start=$(now)
  "$@"
  sum=$(awk -v sum="$sum" -v start="$start" -v end="$(now)" 'BEGIN { print sum + end - start }')
}

# Starts a server on the prepared files, as somebody would who has the option file that came with them.
start_by_hand() {
  mariadbd --defaults-file="$scratch/hand/backup-my.cnf" --datadir="$scratch/hand" --aria-log-dir-path="$scratch/hand" \
    --socket="$socket" --pid-file="$datadir.run/hand.pid" --tmpdir="$datadir.run" --skip-networking --performance-schema=OFF \
    --user="$(id -un)" --log-error="$datadir.run/hand.log" 2>/dev/null &
  server_pid=$!
  until mariadb --no-defaults --socket="$socket" --user=root --execute='SELECT 1' >/dev/null 2>&1; do
    kill -0 "$server_pid" 2>/dev/null || die "the server did not start"
    # As often as a drill looks.
    read -r -t 0.05 -u "$nobody" || true
  done
}
exec {nobody}<> <(:)

by_hand() {
  hand=0
  sync
  timed hand quiet haulout --repo "$repository" fetch --target "$scratch/hand"
  timed hand quiet haulout prepare --target "$scratch/hand"
  timed hand start_by_hand
  stop_server KILL
  rm -rf "$scratch/hand"
}

by_drill() {
  drill=0
  sync
  timed drill quiet haulout --json --repo "$repository" drill --scratch "$scratch/drill"
  summary=$(jq -c 'select(.message_type == "summary")' "$scratch/said" | tail -n 1)
  jq -e '.passed and .tables.left_out == 0' <<<"$summary" >/dev/null || die "the drill failed: $summary"
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
sql 'SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0; SET GLOBAL innodb_max_dirty_pages_pct = 0'
quiet haulout --repo "$repository" init
quiet haulout --repo "$repository" backup --socket "$socket" --user root
bytes=$(du -sb "$datadir/bench" | cut -f 1)
stop_server
rm -rf "$datadir"

heading "drills, and their parts by hand"
# So that the first to be measured is not the one that waits for the disk.
by_hand
for ((turn = 1; turn <= runs; turn++)); do
  by_hand
  by_drill
  jq -c --argjson hand "$hand" --argjson drill "$drill" \
    '{$hand, $drill, check: .steps.check, ratio: (($drill - .steps.check) / $hand), steps}' <<<"$summary" | tee -a "$records" >&2
done

heading "figures"
mkdir -p "$top/integration/out"
jq -s --argjson most "$most" --argjson bytes "$bytes" --argjson cores "$(nproc)" --arg haulout "$(haulout --version)" \
  --arg tool "$(mariadbd --version)" '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def hundredths: . * 100 | round / 100;
  {haulout: $haulout, tool: $tool, cores: $cores, database_bytes: $bytes, runs: length, target: $most,
   hand_seconds: (map(.hand) | median | hundredths), drill_seconds: (map(.drill) | median | hundredths),
   check_seconds: (map(.check) | median | hundredths), ratio: (map(.ratio) | median | hundredths),
   ratio_least: (map(.ratio) | min | hundredths), ratio_most: (map(.ratio) | max | hundredths),
   met: ((map(.ratio) | median) <= $most)}' "$records" >"$top/integration/out/drill_bench.json"
jq -r '"| fetch + prepare + start by hand, s | drill s | of that CHECK TABLE, s | ratio without it (least–most) | target | |",
  "|---:|---:|---:|---:|---:|---|",
  "| \(.hand_seconds) | \(.drill_seconds) | \(.check_seconds) | \(.ratio) (\(.ratio_least)–\(.ratio_most)) | ≤ \(.target) | \(if .met then "met" else "MISSED" end) |",
  "\n\(.haulout) with \(.tool)",
  "\(.database_bytes / 1073741824 * 100 | round / 100) GiB of tables, \(.cores) cores, \(.runs) runs"' \
  "$top/integration/out/drill_bench.json"
note "written to integration/out/drill_bench.json"
