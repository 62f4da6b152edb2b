#!/usr/bin/env bash
# Speed and memory of haulout beside the stock tools, as ratios within one run.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# What is compared, and the ratio that is to be met.
readonly targets='{
  "full backup, folder":     {"stock": "mariadb-backup | zstd -1 -T2 > file",      "most": 1.15},
  "full backup, sealed":     {"stock": "haulout backup, not sealed",               "most": 1.1},
  "full backup, S3":         {"stock": "mariadb-backup | zstd -1 -T2 | aws s3 cp", "most": 1.0},
  "second full":             {"stock": "mariadb-backup > /dev/null",               "most": 1.3},
  "incremental, folder":     {"stock": "mariadb-backup --incremental > /dev/null", "most": 1.15},
  "incremental, S3":         {"stock": "mariadb-backup --incremental > /dev/null", "most": 1.15},
  "restore of incremental":  {"stock": "fetch, mbstream -x, 9 prepares",           "most": 0.5},
  "the same, to the full":   {"stock": "haulout restore of the full alone",        "most": 1.3},
  "restore after compact":   {"stock": "haulout restore before it",                "most": 1.05},
  "compact":                 {"stock": "haulout check --read-data before it",      "most": 5}
}'
readonly memory_most_mib=256
readonly increments=8
# Threads of mariadb-backup that read files, for both sides: haulout's own default.
readonly parallel=2
# Memory of each prepare, for both sides: haulout's own default.
readonly prepare_memory=1G
# sysbench transactions between backups: a second full comes after few, an incremental after some.
readonly events_few=100
readonly events_some=1000

usage() {
  cat <<USAGE
usage: integration/bench.sh [--size GIB] [--runs N] [--s3]

--size  least size of the tables, in GiB (2)
--runs  how often each pair is measured (3); the two sides take turns
--s3    also a full backup and incremental ones to LocalStack, which is on the same cores, and the lineage that is restored
        is kept there

Needs about seven times --size of free space in \${TMPDIR:-/tmp}. Writes integration/out/bench.json, and prints it as a table.
Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already (built for release).
USAGE
}

size=2 runs=3 s3=''
while [ $# -gt 0 ]; do
  case $1 in
    --size) size=${2:?--size wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    --s3) s3=yes; shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $size =~ ^[0-9]+(\.[0-9]+)?$ && $runs =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-bench.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
records=$scratch/records.jsonl
cleanup() {
  stop_server KILL
  [ -z "$s3" ] || "$top/localstack/run.sh" stop --dir "$scratch/localstack" 2>/dev/null || true
  rm -rf "$scratch"
}
trap cleanup EXIT

# Runs the command $3… and records its seconds as those of side $2 (stock, haulout) of comparison $1. The command may set
# `peak_kib` and `uploaded_bytes`, and in `ended` when it was done, if it does more than what is measured.
measure() {
  local name=$1 side=$2 start end
  shift 2
  peak_kib=0 uploaded_bytes=0 ended=''
  # What earlier steps left to be written must not slow this one down.
  sync
  start=$(now)
  "$@"
  end=${ended:-$(now)}
  jq -cn --arg name "$name" --arg side "$side" --argjson seconds "$(seconds_between "$start" "$end")" \
    --argjson peak "$peak_kib" --argjson uploaded "$uploaded_bytes" \
    '{$name, $side, $seconds, peak_kib: $peak, uploaded_bytes: $uploaded}' >>"$records"
  note "$(printf '%-24s %-8s %8s s' "$name" "$side" "$(seconds_between "$start" "$end")")"
}

# Prints the most memory in KiB that process $1 had, once it is gone.
#
# The kernel keeps the high-water mark itself, so a look now and then is exact but for what grows between the last look
# and the end. `time -v` would not do: its figure is the largest of haulout and its children, mariadb-backup among them.
watch_memory() {
  local status peak=0
  # The file has no NUL byte, so `read` takes the whole of it and reports its end.
  while { read -r -d '' status <"/proc/$1/status"; [ -n "${status-}" ]; } 2>/dev/null; do
    if [[ $status =~ VmHWM:[[:space:]]+([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt "$peak" ]; then
      peak=${BASH_REMATCH[1]}
    fi
    status=''
    # A pause without a process: nobody writes to this descriptor.
    read -r -t 0.1 -u "$nobody" || true
  done
  printf '%s\n' "$peak"
}
exec {nobody}<> <(:)

# Runs haulout and notes when it ended in `ended`, its peak memory in `peak_kib`, its summary in `summary`.
haulout_measured() {
  local pid watcher status=0
  haulout --json "$@" >"$scratch/stdout" 2>"$scratch/stderr" &
  pid=$!
  watch_memory "$pid" >"$scratch/peak" &
  watcher=$!
  wait "$pid" || status=$?
  ended=$(now)
  wait "$watcher"
  peak_kib=$(<"$scratch/peak")
  [ "$status" = 0 ] || {
    cat "$scratch/stdout" "$scratch/stderr" >&2
    die "failed: haulout $*"
  }
  summary=$(jq -c 'select(.message_type == "summary")' "$scratch/stdout" | tail -n 1)
  uploaded_bytes=$(jq '.sizes.uploaded_bytes // 0' <<<"$summary")
}

sysbench_tables=8
sysbench_run() {
  quiet sysbench --db-driver=mysql --mysql-socket="$socket" --mysql-user=root --mysql-db=sbtest \
    --tables=$sysbench_tables --table-size="$rows" --threads=2 --rand-type=uniform "$@"
}

# Changes some rows, the same at each run of this script, and waits until the pages are in the files: else a backup would
# be measured with the server's flushing beside it.
change() {
  changes=$((${changes-0} + 1))
  sysbench_run --rand-seed="$changes" --events="$1" --time=0 oltp_write_only run
  settle
}

settle() {
  local deadline=$((SECONDS + 300)) dirty=1
  sql 'SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0; SET GLOBAL innodb_max_dirty_pages_pct = 0'
  while [ "$dirty" -gt 0 ] && [ "$SECONDS" -lt "$deadline" ]; do
    sleep 0.5
    dirty=$(sql "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'" | cut -f 2)
  done
  sql 'SET GLOBAL innodb_max_dirty_pages_pct = 90'
}

stock_backup() {
  mariadb-backup --no-defaults --backup --stream=xbstream --socket="$socket" --user=root --parallel=$parallel \
    --target-dir="$scratch/stock-tmp" "$@" 2>"$scratch/stock.log" || {
    tail -n 20 "$scratch/stock.log" >&2
    return 1
  }
}
stock_to_nothing() { stock_backup "$@" >/dev/null; }
stock_to_file() { stock_backup "${@:2}" | zstd -q -1 -T2 -f -o "$1"; }
stock_to_s3() { stock_backup "${@:2}" | zstd -q -1 -T2 | aws --endpoint-url "$AWS_ENDPOINT_URL" s3 cp --quiet - "$1"; }

# Stores the stock tool's backup $1 (0: the full, else an incremental on the one before) of the lineage.
stock_store() {
  local arguments=(--extra-lsndir="$scratch/stock-lsn/$1")
  mkdir -p "$scratch/stock-lsn" "$scratch/stock"
  [ "$1" = 0 ] || arguments+=(--incremental-basedir="$scratch/stock-lsn/$(($1 - 1))")
  if [ -n "$s3" ]; then
    stock_to_s3 "s3://bench/stock/$1.zst" "${arguments[@]}"
  else
    stock_to_file "$scratch/stock/$1.zst" "${arguments[@]}"
  fi
}

# Fetches and unpacks the stock tool's backup $1 into folder $2.
stock_fetch() {
  mkdir -p "$2"
  if [ -n "$s3" ]; then
    aws --endpoint-url "$AWS_ENDPOINT_URL" s3 cp --quiet "s3://bench/stock/$1.zst" - | zstd -q -d
  else
    zstd -q -d -c "$scratch/stock/$1.zst"
  fi | mbstream -x -C "$2"
}

stock_restore() {
  local number
  stock_fetch 0 "$scratch/stock-restored"
  quiet mariadb-backup --prepare --use-memory=$prepare_memory --target-dir="$scratch/stock-restored"
  for ((number = 1; number <= increments; number++)); do
    stock_fetch "$number" "$scratch/stock-increment"
    quiet mariadb-backup --prepare --use-memory=$prepare_memory --target-dir="$scratch/stock-restored" \
      --incremental-dir="$scratch/stock-increment"
    rm -rf "$scratch/stock-increment"
  done
}

haulout_backup() { haulout_measured --repo "$1" backup --socket "$socket" --user root --parallel $parallel "${@:2}"; }
haulout_restore() {
  haulout_measured --repo "$1" restore --backup "$2" --datadir "$3" --owner "$account:$(id -gn "$account")" \
    --use-memory $prepare_memory
}
# Changes some rows and measures an incremental as $1 in repository $2, whose last backup is the one of `summary`.
incremental() {
  local from
  change $events_some
  # The stock side reads just what haulout has to: all that is newer than the parent's start checkpoint.
  from=$(($(jq .lsn.start <<<"$summary") - 1))
  measure "$1" stock stock_to_nothing --incremental-lsn="$from"
  measure "$1" haulout haulout_backup "$2" --incremental
}
# `init` speaks of what it did; that belongs to no measurement.
haulout_init() { quiet haulout --repo "$1" init "${@:2}"; }
haulout_sealed() { haulout_backup "$1" --full --key-file "$scratch/key"; }

heading "setting up"
"$top/integration/setup.sh" --bench ${s3:+--s3}
find_haulout
unset HAULOUT_REPO HAULOUT_CONFIG
account=$(server_account)
free_kib=$(df --output=avail -k "$scratch" | tail -n 1)
awk -v free="$free_kib" -v size="$size" 'BEGIN { exit !(free / 1048576 > 7 * size) }' ||
  die "$scratch has $((free_kib / 1048576)) GiB free; seven times $size GiB are needed"
if [ -n "$s3" ]; then
  AWS_ENDPOINT_URL=$("$top/localstack/run.sh" start --port 0 --dir "$scratch/localstack" --until-exit-of $$)
  "$top/localstack/run.sh" bucket bench --dir "$scratch/localstack"
  unset AWS_PROFILE AWS_SESSION_TOKEN AWS_DEFAULT_REGION AWS_CA_BUNDLE
  export AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
fi

heading "filling $sysbench_tables tables with at least $size GiB"
# A row with its index takes about 220 bytes.
rows=$(awk -v size="$size" -v tables=$sysbench_tables 'BEGIN { printf "%d", size * 1073741824 / tables / 215 }')
make_datadir "$datadir"
# The high capacity makes the server flush at once when it is told to settle.
start_server "$datadir" "$socket" --innodb-buffer-pool-size=1G --innodb-log-file-size=512M \
  --innodb-flush-log-at-trx-commit=0 --innodb-io-capacity=10000 --innodb-io-capacity-max=20000 \
  --max-connections=50 --performance-schema=OFF
sql 'CREATE DATABASE sbtest'
sysbench_run oltp_read_write prepare
settle
bytes=$(du -sb "$datadir/sbtest" | cut -f 1)
note "$(awk -v bytes="$bytes" 'BEGIN { printf "%.2f GiB", bytes / 1073741824 }') in $sysbench_tables tables of $rows rows"
# Reads the files once, so that the first to be measured is not the one that waits for the disk.
stock_backup >/dev/null

heading "full backup"
printf '%064d' 1 >"$scratch/key"
chmod 600 "$scratch/key"
for ((run = 1; run <= runs; run++)); do
  measure "full backup, folder" stock stock_to_file "$scratch/full.zst"
  rm -rf "$scratch/full.zst" "$scratch/repository"
  haulout_init "file://$scratch/repository"
  measure "full backup, folder" haulout haulout_backup "file://$scratch/repository" --full
  haulout_init "file://$scratch/sealed" --encrypt --key-file "$scratch/key"
  measure "full backup, sealed" haulout haulout_sealed "file://$scratch/sealed"
  rm -rf "$scratch/sealed"
done
# The backup that is not sealed is one of both comparisons.
jq -c 'select(.name == "full backup, folder" and .side == "haulout") | .name = "full backup, sealed" | .side = "stock"' "$records" \
  >"$scratch/again"
cat "$scratch/again" >>"$records"
if [ -n "$s3" ]; then
  for ((run = 1; run <= runs; run++)); do
    measure "full backup, S3" stock stock_to_s3 s3://bench/full.zst
    aws --endpoint-url "$AWS_ENDPOINT_URL" s3 rm --quiet --recursive s3://bench/
    haulout_init s3://bench/once
    measure "full backup, S3" haulout haulout_backup s3://bench/once --full
    aws --endpoint-url "$AWS_ENDPOINT_URL" s3 rm --quiet --recursive s3://bench/
  done
fi

heading "a second full backup, little changed"
for ((run = 1; run <= runs; run++)); do
  change $events_few
  measure "second full" stock stock_to_nothing
  measure "second full" haulout haulout_backup "file://$scratch/repository" --full
done
if [ -n "$s3" ]; then
  heading "incremental backups to a folder"
  for ((number = 1; number <= increments; number++)); do
    incremental "incremental, folder" "file://$scratch/repository"
  done
fi
rm -rf "$scratch/repository"

heading "a lineage of a full backup and $increments incremental ones"
lineage=file://$scratch/lineage place=folder
[ -z "$s3" ] || lineage=s3://bench/lineage place=S3
haulout_init "$lineage"
peak_kib=0
haulout_backup "$lineage" --full
full_id=$(jq -r .backup_id <<<"$summary")
stock_store 0
for ((number = 1; number <= increments; number++)); do
  incremental "incremental, $place" "$lineage"
  stock_store "$number"
done

heading "restore"
for ((run = 1; run <= runs; run++)); do
  rm -rf "$scratch/stock-restored" "$scratch/restored"
  measure "restore of incremental" stock stock_restore
  rm -rf "$scratch/stock-restored"
  measure "the same, to the full" stock haulout_restore "$lineage" "$full_id" "$scratch/restored"
  rm -rf "$scratch/restored"
  measure "restore of incremental" haulout haulout_restore "$lineage" latest "$scratch/restored"
done
# The restore of the incremental is one of both comparisons.
jq -c 'select(.name == "restore of incremental" and .side == "haulout") | .name = "the same, to the full"' "$records" \
  >"$scratch/again"
cat "$scratch/again" >>"$records"

heading "compact, of the last incremental alone"
haulout_prune() { haulout_measured --repo "$lineage" prune --grace 0s --keep-last 1; }
haulout_check() { haulout_measured --repo "$lineage" check --read-data; }
haulout_compact() { haulout_measured --repo "$lineage" compact; }
haulout_prune
measure compact stock haulout_check
measure compact haulout haulout_compact
compacted=$summary
haulout_prune
rm -rf "$scratch/restored"
measure "restore after compact" haulout haulout_restore "$lineage" latest "$scratch/restored"
jq -c '"compacted: \(.)"' <<<"$compacted" >&2
jq -cs '[.[] | select(.name == "restore of incremental" and .side == "haulout")] | last
  | .name = "restore after compact" | .side = "stock"' "$records" >"$scratch/again"
cat "$scratch/again" >>"$records"

heading "is what was restored right?"
checksums >"$scratch/before"
stop_server
socket=$scratch/restored.run/socket
start_server "$scratch/restored" "$socket"
checksums >"$scratch/after"
diff "$scratch/before" "$scratch/after" || die "FAILED: the restored tables differ"
[ -s "$scratch/after" ] || die "FAILED: there are no tables"
note "all $(wc -l <"$scratch/after") tables are equal"
stop_server

heading "figures"
mkdir -p "$top/integration/out"
jq -s --argjson targets "$targets" --argjson memory "$memory_most_mib" --argjson bytes "$bytes" --argjson cores "$(nproc)" \
  --arg haulout "$(haulout --version)" --arg tool "$(mariadb-backup --version 2>&1 | head -n 1)" --argjson runs "$runs" '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def hundredths: . * 100 | round / 100;
  . as $all
  | {haulout: $haulout, tool: $tool, cores: $cores, database_bytes: $bytes, runs: $runs, memory_most_mib: $memory,
     comparisons: [$targets | to_entries[] | .key as $name | .value as $target
       | [$all[] | select(.name == $name)] as $mine | select($mine | length > 0)
       | [$mine[] | select(.side == "stock").seconds] as $stock
       | [$mine[] | select(.side == "haulout").seconds] as $own
       | [range($own | length) as $i | $own[$i] / $stock[$i]] as $ratios
       | ([$mine[] | select(.side == "haulout").peak_kib] | max / 1024 | ceil) as $peak
       | {name: $name, stock: $target.stock, stock_seconds: ($stock | median | hundredths), haulout_seconds: ($own | median | hundredths),
          ratio: ($ratios | median | hundredths), ratio_least: ($ratios | min | hundredths),
          ratio_most: ($ratios | max | hundredths), target: $target.most, peak_mib: $peak,
          uploaded_bytes: ([$mine[] | select(.side == "haulout").uploaded_bytes] | median),
          met: (($ratios | median) <= $target.most and $peak <= $memory)}]}' \
  "$records" >"$top/integration/out/bench.json"
jq -r '"| what | stock | stock s | haulout s | ratio (least–most) | target | peak MiB | uploaded MiB | |",
  "|---|---|---:|---:|---:|---:|---:|---:|---|",
  (.comparisons[] | "| \(.name) | `\(.stock | gsub("\\|"; "\\|"))` | \(.stock_seconds) | \(.haulout_seconds) | \(.ratio) (\(.ratio_least)–\(.ratio_most)) | ≤ \(.target) | \(.peak_mib) | \(.uploaded_bytes / 1048576 | round) | \(if .met then "met" else "MISSED" end) |"),
  "\n\(.haulout) beside \(.tool)",
  "\(.database_bytes / 1073741824 * 100 | round / 100) GiB of tables, \(.cores) cores, \(.runs) runs of each pair; peak memory of haulout alone, at most \(.memory_most_mib) MiB wanted"' \
  "$top/integration/out/bench.json"
note "written to integration/out/bench.json"
