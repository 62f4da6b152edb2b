#!/usr/bin/env bash
# What archiving costs and how far it is behind, and how fast archived binary log is replayed: held against mariadb-binlog | mariadb.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Seconds from a commit to where it is stored, share of a core at so many MB/s, and replay beside the stock tools' pipe (their time / ours).
readonly lag_most=6 cpu_most=0.10 cpu_rate=20 replay_least=0.95

usage() {
  cat <<USAGE
usage: integration/archive_bench.sh [--rate MB] [--seconds N] [--runs N]

--rate     binary log that the server writes, in MB/s (20)
--seconds  how long it does (40)
--runs     how often each side replays (3); the two take turns

Writes integration/out/archive_bench.json, and prints it as a table.
Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already (built for release).
USAGE
}

rate=20 seconds=40 runs=3
while [ $# -gt 0 ]; do
  case $1 in
    --rate) rate=${2:?--rate wants a number}; shift 2 ;;
    --seconds) seconds=${2:?--seconds wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $rate =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ && $runs =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-archive.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
archiver=
cleanup() {
  [ -z "$archiver" ] || kill -KILL "$archiver" 2>/dev/null || true
  stop_server KILL
  rm -rf "$scratch"
}
trap cleanup EXIT
exec {nobody}<> <(:)

# Processor time in clock ticks of process $1, of those it has waited for, and of its children.
ticks() {
  local child
  awk '{ sub(/.*\) /, ""); print $12 + $13 + $14 + $15 }' "/proc/$1/stat" 2>/dev/null || echo 0
  for child in $(pgrep -P "$1" || true); do ticks "$child"; done
}
ticks_in_all() { ticks "$1" | awk '{ sum += $1 } END { print sum }'; }

heading "setting up"
"$top/integration/setup.sh"
find_haulout
unset HAULOUT_REPO HAULOUT_CONFIG
repository=file://$scratch/repository

make_datadir "$datadir"
start_server "$datadir" "$socket" --innodb-buffer-pool-size=512M --innodb-log-file-size=256M --innodb-flush-log-at-trx-commit=0 \
  --performance-schema=OFF --log-bin="$datadir/binlog" --server-id=1 --binlog-format=ROW --max-binlog-size=256M
sql 'CREATE DATABASE bench; CREATE TABLE bench.t (id INT AUTO_INCREMENT PRIMARY KEY, k INT, pad VARCHAR(500), KEY (k)) CHARSET latin1'
quiet haulout --repo "$repository" init
quiet haulout --repo "$repository" backup --socket "$socket" --user root

heading "$rate MB/s of binary log for $seconds seconds"
haulout --json --repo "$repository" archive --socket "$socket" --user root >"$scratch/archive.jsonl" 2>&1 &
archiver=$!
# A transaction of 1 MB.
transaction="INSERT INTO bench.t (k, pad) SELECT FLOOR(RAND() * 100000), CONCAT(SHA2(RAND(), 512), SHA2(RAND(), 512), SHA1(seq), SHA2(seq, 384)) FROM seq_1_to_2470;"
before=$(ticks_in_all "$archiver") begin=$(now)
for ((second = 0; second < seconds; second++)); do
  printf 'USE bench;\n'
  for ((number = 0; number < rate; number++)); do printf '%s\n' "$transaction"; done
  # What the second has left.
  left=$(awk -v begin="$begin" -v second="$second" -v now="$(now)" 'BEGIN { left = begin + second + 1 - now; print (left > 0.001 ? left : 0.001) }')
  read -r -t "$left" -u "$nobody" || true
done | sql
end=$(now)
after=$(ticks_in_all "$archiver")
wanted=$(sql 'SELECT @@gtid_binlog_pos')
deadline=$((SECONDS + 60))
until tail -n 3 "$scratch/archive.jsonl" | grep -q "\"gtid\":\"$wanted\""; do
  ((SECONDS < deadline)) || die "not all was archived: $(tail -n 3 "$scratch/archive.jsonl")"
  read -r -t 0.2 -u "$nobody" || true
done
kill -INT "$archiver"
wait "$archiver" || die "the archiver failed: $(tail -n 3 "$scratch/archive.jsonl")"
archiver=
bytes=$(sql 'SHOW BINARY LOGS' | awk '{ sum += $2 } END { print sum }')
took=$(seconds_between "$begin" "$end")
cpu=$(awk -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" -v took="$took" 'BEGIN { printf "%.3f", ticks / hertz / took }')
# A segment's key says the second of its first transaction; its document is the last that is stored of it.
lag=$(find "$scratch/repository/binlogs" -name '*.json' -printf '%f %T@\n' | while read -r name stored; do
  first=$(cut -d - -f 2 <<<"$name")
  printf '%s %s\n' "$(date -u -d "${first:0:8} ${first:9:2}:${first:11:2}:${first:13:2}" +%s)" "$stored"
done | awk '{ lag = $2 - $1; if (lag > most) most = lag } END { printf "%.1f", most }')
stop_server

heading "replaying it"
replay_options=(--skip-networking --skip-log-bin --performance-schema=OFF --event-scheduler=OFF --innodb-flush-log-at-trx-commit=0
  --skip-innodb-doublewrite --max-allowed-packet=1G --innodb-buffer-pool-size=1G)
by_hand() {
  quiet haulout --repo "$repository" restore --datadir "$scratch/hand"
  chown -R "$(server_account)" "$scratch/hand"
  sync
  local begin
  begin=$(now)
  start_server "$scratch/hand" "$scratch/hand.run/socket" "${replay_options[@]}"
  mariadb-binlog --no-defaults --start-position="$position" "$datadir"/binlog.[0-9]* |
    mariadb --no-defaults --socket="$scratch/hand.run/socket" --user=root --binary-mode --max-allowed-packet=1G
  stop_server
  hand=$(seconds_between "$begin" "$(now)")
  rm -rf "$scratch/hand" "$scratch/hand.run"
}
by_haulout() {
  sync
  quiet haulout --json --repo "$repository" restore --datadir "$scratch/ours" --use-memory 1G --to-gtid "$wanted"
  ours=$(jq -s 'map(select(.message_type == "summary")) | last | .steps.replay' "$scratch/said")
  rm -rf "$scratch/ours"
}
position=$(haulout --json --repo "$repository" show latest | jq -s 'map(select(.position)) | last | .position.position')
# The first one waits for the disk.
by_hand
for ((turn = 1; turn <= runs; turn++)); do
  by_hand
  by_haulout
  jq -nc --argjson hand "$hand" --argjson ours "$ours" '{$hand, $ours, ratio: ($hand / $ours)}' | tee -a "$scratch/records.jsonl" >&2
done

heading "figures"
mkdir -p "$top/integration/out"
jq -s --argjson lag "$lag" --argjson cpu "$cpu" --argjson bytes "$bytes" --argjson took "$took" --argjson cores "$(nproc)" \
  --arg haulout "$(haulout --version)" --argjson lag_most $lag_most --argjson cpu_most $cpu_most --argjson cpu_rate $cpu_rate --argjson replay_least $replay_least '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def hundredths: . * 100 | round / 100;
  {haulout: $haulout, cores: $cores, binlog_bytes: $bytes, seconds: $took, megabytes_per_second: ($bytes / $took / 1e6 | hundredths),
   lag_most_seconds: $lag, lag_met: ($lag <= $lag_most), cpu_share: $cpu,
   cpu_share_at_rate: ($cpu * $cpu_rate * 1e6 * $took / $bytes | hundredths),
   cpu_met: ($cpu * $cpu_rate * 1e6 * $took / $bytes <= $cpu_most),
   replay_hand_seconds: (map(.hand) | median | hundredths), replay_seconds: (map(.ours) | median | hundredths),
   replay_ratio: (map(.ratio) | median | hundredths), replay_least: (map(.ratio) | min | hundredths),
   replay_most: (map(.ratio) | max | hundredths), replay_met: ((map(.ratio) | median) >= $replay_least), runs: length}' \
  "$scratch/records.jsonl" >"$top/integration/out/archive_bench.json"
jq -r '"| what | measured | target | |", "|---|---:|---:|---|",
  "| longest time from a commit to its being stored, s | \(.lag_most_seconds) | ≤ '$lag_most' | \(if .lag_met then "met" else "MISSED" end) |",
  "| processor time of the archiver for '$cpu_rate' MB/s, as measured at \(.megabytes_per_second), cores | \(.cpu_share_at_rate) | ≤ '$cpu_most' | \(if .cpu_met then "met" else "MISSED" end) |",
  "| replay, time of mariadb-binlog and mariadb / ours (least–most) | \(.replay_ratio) (\(.replay_least)–\(.replay_most)) | ≥ '$replay_least' | \(if .replay_met then "met" else "MISSED" end) |"' \
  "$top/integration/out/archive_bench.json"
