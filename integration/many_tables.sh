#!/usr/bin/env bash
# Time and memory of a server with very many small tables, beside the stock tools.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# Threads of mariadb-backup that read files, and memory of each prepare: haulout's own defaults, for both sides.
readonly parallel=2
readonly prepare_memory=1G

usage() {
  cat <<USAGE
usage: integration/many_tables.sh [--tables N] [--runs N]

--tables  how many tables (10000), in schemas of 1000
--runs    how often each pair is measured (2); the two sides take turns

Prints a table of ratios and writes integration/out/many_tables.json. Takes about 600 KiB of \${TMPDIR:-/tmp} for each table.
Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already (built for release).
USAGE
}

tables=10000 runs=2
while [ $# -gt 0 ]; do
  case $1 in
    --tables) tables=${2:?--tables wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $tables =~ ^[1-9][0-9]*$ && $runs =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-many.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
records=$scratch/records.jsonl
cleanup() {
  stop_server KILL
  rm -rf "$scratch"
}
trap cleanup EXIT
exec {nobody}<> <(:)
peak_kib=0

# Waits for the program of process $1 and keeps its peak memory in `peak_kib`, the largest of several. The kernel keeps the
# high-water mark, so a look now and then is exact but for what grows at the very end.
watch_peak() {
  local status
  while kill -0 "$1" 2>/dev/null; do
    { read -r -d '' status <"/proc/$1/status"; } 2>/dev/null || true
    if [[ ${status-} =~ VmHWM:[[:space:]]+([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt "$peak_kib" ]; then
      peak_kib=${BASH_REMATCH[1]}
    fi
    read -r -t 0.05 -u "$nobody" || true
  done
  wait "$1" || {
    tail -n 30 "$scratch/said" >&2
    die "failed, see above"
  }
}

# Runs the command $3… as side $2 (stock, haulout) of comparison $1, and records seconds and peak memory.
measure() {
  local name=$1 side=$2 start end
  shift 2
  peak_kib=0
  sync
  start=$(now)
  "$@"
  end=$(now)
  jq -cn --arg name "$name" --arg side "$side" --argjson seconds "$(seconds_between "$start" "$end")" \
    --argjson peak "$peak_kib" '{$name, $side, $seconds, $peak}' >>"$records"
  note "$(printf '%-24s %-8s %8s s %6s MiB' "$name" "$side" "$(seconds_between "$start" "$end")" $((peak_kib / 1024)))"
}

watched() {
  "$@" >"$scratch/said" 2>&1 &
  watch_peak $!
}

# The stock tool's backup, compressed into file $1.
stock_backup() {
  local file=$1 compressor tool
  shift
  rm -f "$scratch/pipe"
  mkfifo "$scratch/pipe"
  zstd -q -1 -T2 -f -o "$file" <"$scratch/pipe" &
  compressor=$!
  mariadb-backup --no-defaults --backup --stream=xbstream --socket="$socket" --user=root --parallel=$parallel \
    --target-dir="$scratch/stock-tmp" "$@" >"$scratch/pipe" 2>"$scratch/said" &
  tool=$!
  watch_peak "$tool"
  wait "$compressor"
}
stock_unpack() {
  mkdir -p "$2"
  zstd -q -d -c "$1" | mbstream -x -C "$2"
}
# Stock needs two prepares and two unpacked copies of the names; haulout does all in one command.
stock_restore() {
  rm -rf "$scratch/stock" "$scratch/stock-increment"
  stock_unpack "$scratch/full.zst" "$scratch/stock"
  watched mariadb-backup --prepare --use-memory=$prepare_memory --target-dir="$scratch/stock"
  stock_unpack "$scratch/increment.zst" "$scratch/stock-increment"
  watched mariadb-backup --prepare --use-memory=$prepare_memory --target-dir="$scratch/stock" \
    --incremental-dir="$scratch/stock-increment"
}
haulout_backup() { watched haulout --repo "file://$scratch/repository" backup --socket "$socket" --user root --parallel $parallel "$@"; }
haulout_restore() {
  rm -rf "$scratch/restored"
  watched haulout --repo "file://$scratch/repository" restore --datadir "$scratch/restored" \
    --owner "$account:$(id -gn "$account")" --use-memory $prepare_memory
}

heading "setting up"
"$top/integration/setup.sh" --bench
find_haulout
unset HAULOUT_REPO HAULOUT_CONFIG
account=$(server_account)
ulimit -n "$(ulimit -H -n)"

heading "making $tables tables"
make_datadir "$datadir"
start_server "$datadir" "$socket" --innodb-buffer-pool-size=1G --innodb-log-file-size=512M \
  --innodb-flush-log-at-trx-commit=0 --innodb-io-capacity=10000 --innodb-io-capacity-max=20000 \
  --performance-schema=OFF --table-open-cache=1000
awk -v tables="$tables" 'BEGIN {
  for (table = 0; table < tables; table++) {
    schema = "many" int(table / 1000)
    if (table % 1000 == 0) print "CREATE DATABASE " schema "; USE " schema ";"
    print "CREATE TABLE t" table " (id INT PRIMARY KEY, text VARCHAR(100), KEY (text)) ENGINE=InnoDB;"
    print "INSERT INTO t" table " SELECT seq, MD5(seq + " table ") FROM seq_1_to_50;"
  }
}' | sql
settle() {
  local deadline=$((SECONDS + 300)) dirty=1
  sql 'SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0; SET GLOBAL innodb_max_dirty_pages_pct = 0'
  while [ "$dirty" -gt 0 ] && [ "$SECONDS" -lt "$deadline" ]; do
    sleep 0.5
    dirty=$(sql "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'" | cut -f 2)
  done
  sql 'SET GLOBAL innodb_max_dirty_pages_pct = 90'
}
# Changes one table in a hundred.
change() {
  awk -v tables="$tables" 'BEGIN {
    for (table = 7; table < tables; table += 100) print "UPDATE many" int(table / 1000) ".t" table " SET text = REVERSE(text);"
  }' | sql
  settle
}
settle
bytes=$(du -sb "$datadir" | cut -f 1)
note "$((bytes / 1048576)) MiB"
# Reads the files once, so that the first to be measured is not the one that waits for the disk.
stock_backup "$scratch/full.zst"

for ((run = 1; run <= runs; run++)); do
  rm -rf "$scratch/repository"
  haulout --repo "file://$scratch/repository" init >"$scratch/said" 2>&1
  measure "full backup" stock stock_backup "$scratch/full.zst" --extra-lsndir="$scratch/lsn"
  measure "full backup" haulout haulout_backup --full
  change
  measure "incremental" stock stock_backup "$scratch/increment.zst" --incremental-basedir="$scratch/lsn"
  measure "incremental" haulout haulout_backup --incremental
  measure "restore of incremental" stock stock_restore
  measure "restore of incremental" haulout haulout_restore
done

heading "is what was restored right?"
# One sum over all tables of a schema, so that ten thousand need ten queries.
sums() {
  local schema
  for ((schema = 0; schema * 1000 < tables; schema++)); do
    sql "SELECT GROUP_CONCAT('\`', table_schema, '\`.\`', table_name, '\`' ORDER BY 1) FROM information_schema.tables
      WHERE table_schema = 'many$schema'" >"$scratch/names"
    { printf 'CHECKSUM TABLE ' && cat "$scratch/names"; } | sql
  done
}
sql 'SET GLOBAL group_concat_max_len = 10000000'
sums >"$scratch/before"
stop_server
socket=$scratch/restored.run/socket
start_server "$scratch/restored" "$socket" --innodb-buffer-pool-size=1G --innodb-log-file-size=512M --table-open-cache=1000
sql 'SET GLOBAL group_concat_max_len = 10000000'
sums >"$scratch/after"
diff "$scratch/before" "$scratch/after" >/dev/null || die "FAILED: the restored tables differ"
[ "$(wc -l <"$scratch/after")" = "$tables" ] || die "FAILED: $(wc -l <"$scratch/after") tables instead of $tables"
note "all $tables tables are equal"
stop_server

heading "figures"
mkdir -p "$top/integration/out"
jq -s --argjson tables "$tables" --argjson bytes "$bytes" --argjson cores "$(nproc)" --argjson runs "$runs" \
  --arg haulout "$(haulout --version)" --arg tool "$(mariadb-backup --version 2>&1 | head -n 1)" '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def hundredths: . * 100 | round / 100;
  . as $all
  | {$haulout, $tool, $tables, database_bytes: $bytes, $cores, $runs,
     comparisons: [("full backup", "incremental", "restore of incremental") as $name
       | [$all[] | select(.name == $name)] as $mine
       | ([$mine[] | select(.side == "stock")]) as $stock | ([$mine[] | select(.side == "haulout")]) as $own
       | {name: $name, stock_seconds: ([$stock[].seconds] | median), haulout_seconds: ([$own[].seconds] | median),
          ratio: ([range($own | length) as $i | $own[$i].seconds / $stock[$i].seconds] | median | hundredths),
          stock_peak_mib: ([$stock[].peak] | max / 1024 | ceil), haulout_peak_mib: ([$own[].peak] | max / 1024 | ceil)}]}' \
  "$records" >"$top/integration/out/many_tables.json"
jq -r '"| \(.tables) tables | stock s | haulout s | ratio | peak MiB of mariadb-backup alone | peak MiB of haulout itself |", "|---|---:|---:|---:|---:|---:|",
  (.comparisons[] | "| \(.name) | \(.stock_seconds) | \(.haulout_seconds) | \(.ratio) | \(.stock_peak_mib) | \(.haulout_peak_mib) |"),
  "\n\(.haulout) beside \(.tool); \(.database_bytes / 1048576 | round) MiB, \(.cores) cores, \(.runs) runs of each pair; the stock side compresses with zstd -1 -T2, and unpacks and prepares twice"' \
  "$top/integration/out/many_tables.json"
note "written to integration/out/many_tables.json"
