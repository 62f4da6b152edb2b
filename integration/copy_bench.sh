#!/usr/bin/env bash
# Speed of `haulout copy` beside `rclone copy` between the same two stores, as ratios of pairs that take turns.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# rclone's seconds divided by haulout's are to be this, at least.
readonly speed_least=0.9

usage() {
  cat <<USAGE
usage: integration/copy_bench.sh [--size GIB] [--runs N] [--transfers N] [--s3] [--garage]

--size       size of the table that is backed up, in GiB (1)
--runs       how often each pair is measured (3); the two sides take turns
--transfers  packs, and rclone's files, on their way at the same time (8)
--s3         also from a folder to LocalStack, and between two buckets of it; it is on the same cores
--garage     also from a folder to a Garage of three nodes, on the same cores (integration/garage.sh builds it: 15 to 30 minutes),
             and a restore from there beside \`rclone copy\` of the same packs and \`mariadb-backup --prepare\`

rclone sees two stores in the two buckets, so that the bytes go through it as they go through haulout: neither uses the store's
own copy of an object. Where the copy is a folder, and where it is restored, the time in which it gets to the disk is counted. haulout proves each pack by its name on the way, rclone compares the checksums that the stores tell.

Needs about five times --size of free space in \${TMPDIR:-/tmp}. Writes integration/out/copy_bench.json, and prints it as a table.
Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already (built for release).
USAGE
}

size=1 runs=3 transfers=8 s3='' garage=''
while [ $# -gt 0 ]; do
  case $1 in
    --size) size=${2:?--size wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    --transfers) transfers=${2:?--transfers wants a number}; shift 2 ;;
    --s3) s3=yes; shift ;;
    --garage) garage=yes; shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $size =~ ^[0-9]+(\.[0-9]+)?$ && $runs =~ ^[1-9][0-9]*$ && $transfers =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-copy-bench.XXXXXX")
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
records=$scratch/records.jsonl
cleanup() {
  stop_server KILL
  [ -z "$s3" ] || "$top/localstack/run.sh" stop --dir "$scratch/localstack" 2>/dev/null || true
  [ -z "$garage" ] || "$top/integration/garage.sh" stop --dir "$scratch/g" 2>/dev/null || true
  rm -rf "$scratch"
}
trap cleanup EXIT

# Runs the command $3… and records its seconds as those of side $2 (rclone, haulout) of comparison $1.
measure() {
  local name=$1 side=$2 start end
  shift 2
  # What earlier steps left to be written must not slow this one down.
  sync
  start=$(now)
  quiet "$@"
  end=$(now)
  jq -cn --arg name "$name" --arg side "$side" --argjson seconds "$(seconds_between "$start" "$end")" \
    --arg load "$(cut -d ' ' -f 1 /proc/loadavg)" '{$name, $side, $seconds, load: ($load | tonumber)}' >>"$records"
  note "$(printf '%-18s %-8s %8s s' "$name" "$side" "$(seconds_between "$start" "$end")")"
}

# A copy is there when it is on the disk: haulout sees to that file by file, rclone leaves it to the system.
on_disk() { [[ $1 == *:* ]] || sync -f "$1"; }
by_rclone() {
  rclone copy "$1" "$2" --exclude '/leases/**' --transfers "$transfers" --checkers "$transfers" --config /dev/null && on_disk "$2"
}
by_haulout() { haulout --json --repo "$1" copy --to "$2" --transfers "$transfers"; }

# Measures both sides once, from the place that haulout calls $2 and rclone $3 to $4 and $5, as $1; who begins depends on $6.
pair() {
  local name=$1 from=$2 rclone_from=$3 to=$4 rclone_to=$5 number=$6 side
  local sides=(rclone haulout)
  ((number % 2)) || sides=(haulout rclone)
  for side in "${sides[@]}"; do
    case $side in
      rclone) measure "$name" rclone by_rclone "$rclone_from" "$rclone_to/rclone-$number" ;;
      haulout)
        [[ $to != file://* ]] || mkdir -p "${to#file://}/haulout-$number"
        measure "$name" haulout by_haulout "$from" "$to/haulout-$number"
        # Both have moved the same.
        quiet haulout --json --repo "$to/haulout-$number" check
        ;;
    esac
  done
  quiet rclone check "$rclone_to/haulout-$number/packs" "$rclone_to/rclone-$number/packs" --size-only --config /dev/null
  quiet rclone purge "$rclone_to/haulout-$number" --config /dev/null
  quiet rclone purge "$rclone_to/rclone-$number" --config /dev/null
}

heading "setting up"
"$top/integration/setup.sh" --copy-bench ${s3:+--s3}
find_haulout
unset HAULOUT_REPO HAULOUT_CONFIG HAULOUT_COPY_TO HAULOUT_TRANSFERS
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_DEFAULT_REGION AWS_CA_BUNDLE
free_kib=$(df --output=avail -k "$scratch" | tail -n 1)
awk -v free="$free_kib" -v size="$size" 'BEGIN { exit !(free / 1048576 > 5 * size) }' ||
  die "$scratch has $((free_kib / 1048576)) GiB free; five times $size GiB are needed"
if [ -n "$s3" ]; then
  AWS_ENDPOINT_URL=$("$top/localstack/run.sh" start --port 0 --dir "$scratch/localstack" --until-exit-of $$)
  "$top/localstack/run.sh" bucket one --dir "$scratch/localstack"
  "$top/localstack/run.sh" bucket two --dir "$scratch/localstack"
  export AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
  for store in ONE TWO; do
    export "RCLONE_CONFIG_${store}_TYPE=s3" "RCLONE_CONFIG_${store}_PROVIDER=Other" \
      "RCLONE_CONFIG_${store}_ENDPOINT=$AWS_ENDPOINT_URL" "RCLONE_CONFIG_${store}_REGION=us-east-1" \
      "RCLONE_CONFIG_${store}_ACCESS_KEY_ID=test" "RCLONE_CONFIG_${store}_SECRET_ACCESS_KEY=test" \
      "RCLONE_CONFIG_${store}_NO_CHECK_BUCKET=true"
  done
fi

heading "backing $size GiB up"
make_datadir "$datadir"
start_server "$datadir" "$socket" --innodb-buffer-pool-size=512M --innodb-log-file-size=512M \
  --innodb-flush-log-at-trx-commit=0 --performance-schema=OFF
# Random bytes, of which a call gives 1024 at most: what is stored is as long as what is backed up.
random=$(printf "RANDOM_BYTES(1000), %.0s" {1..8})
random=${random%, }
rows=$(awk -v size="$size" 'BEGIN { printf "%d", size * 1073741824 / 8300 / 100 }')
sql "CREATE DATABASE bench; CREATE TABLE bench.blob_row (id INT PRIMARY KEY AUTO_INCREMENT, b BLOB)"
for ((part = 0; part < 100; part++)); do
  sql "USE bench; INSERT INTO blob_row (b) SELECT CONCAT($random) FROM seq_1_to_$rows"
done
repository=$scratch/repository
quiet haulout --repo "file://$repository" init
quiet haulout --repo "file://$repository" backup --socket "$socket" --user root
stop_server
bytes=$(du -sb "$repository/packs" | cut -f 1)
note "$(awk -v bytes="$bytes" 'BEGIN { printf "%.2f GiB", bytes / 1073741824 }') in $(find "$repository/packs" -type f | wc -l) packs"
rm -rf "$datadir"
# Reads all once, so that the first to be measured is not the one that waits for the disk.
cat "$repository"/packs/*/* >/dev/null

heading "copies"
for ((number = 1; number <= runs; number++)); do
  pair "folder to folder" "file://$repository" "$repository" "file://$scratch/copies" "$scratch/copies" "$number"
done
if [ -n "$s3" ]; then
  for ((number = 1; number <= runs; number++)); do
    pair "folder to S3" "file://$repository" "$repository" s3://one/copies one:one/copies "$number"
  done
  quiet haulout --repo "file://$repository" copy --to s3://one/db1
  for ((number = 1; number <= runs; number++)); do
    pair "S3 to S3" s3://one/db1 one:one/db1 s3://two/copies two:two/copies "$number"
  done
fi

if [ -n "$garage" ]; then
  client=$("$top/integration/garage.sh" start --dir "$scratch/g" --until-exit-of $$)
  while IFS='=' read -r name value; do export "$name=$value"; done <<<"$client"
  export RCLONE_CONFIG_GARAGE_TYPE=s3 RCLONE_CONFIG_GARAGE_PROVIDER=Other RCLONE_CONFIG_GARAGE_NO_CHECK_BUCKET=true \
    "RCLONE_CONFIG_GARAGE_ENDPOINT=$AWS_ENDPOINT_URL" "RCLONE_CONFIG_GARAGE_REGION=$AWS_REGION" \
    "RCLONE_CONFIG_GARAGE_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID" \
    "RCLONE_CONFIG_GARAGE_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY"
  for ((number = 1; number <= runs; number++)); do
    pair "folder to Garage" "file://$repository" "$repository" s3://lab/copies garage:lab/copies "$number"
  done
  quiet haulout --repo "file://$repository" copy --to s3://lab/db1
  packs_and_prepare() {
    rclone copy garage:lab/db1/packs "$scratch/packs" --transfers "$transfers" --checkers "$transfers" --config /dev/null &&
      on_disk "$scratch/packs" && mariadb-backup --prepare --use-memory=1G --target-dir="$scratch/fetched"
  }
  restore() { haulout --repo s3://lab/db1 restore --use-memory 1GiB --connections "$transfers" --datadir "$scratch/restored"; }
  for ((number = 1; number <= runs; number++)); do
    quiet haulout --repo s3://lab/db1 fetch --target "$scratch/fetched"
    sides=(rclone haulout)
    ((number % 2)) || sides=(haulout rclone)
    for side in "${sides[@]}"; do
      case $side in
        rclone) measure "restore from Garage" rclone packs_and_prepare ;;
        haulout) measure "restore from Garage" haulout restore ;;
      esac
    done
    rm -rf "$scratch/fetched" "$scratch/packs" "$scratch/restored"
  done
fi

heading "figures"
mkdir -p "$top/integration/out"
jq -s --argjson least "$speed_least" --argjson bytes "$bytes" --argjson cores "$(nproc)" --argjson runs "$runs" \
  --argjson transfers "$transfers" --arg haulout "$(haulout --version)" --arg rclone "$(rclone version | head -n 1)" '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def hundredths: . * 100 | round / 100;
  . as $all
  | {haulout: $haulout, rclone: $rclone, cores: $cores, stored_bytes: $bytes, runs: $runs, transfers: $transfers,
     load_least: ([.[].load] | min), load_most: ([.[].load] | max),
     comparisons: [[.[].name] | unique[] as $name
       | [$all[] | select(.name == $name and .side == "rclone").seconds] as $theirs
       | [$all[] | select(.name == $name and .side == "haulout").seconds] as $own
       | [range($own | length) as $i | $theirs[$i] / $own[$i]] as $ratios
       | {name: $name, rclone_seconds: ($theirs | median | hundredths), haulout_seconds: ($own | median | hundredths),
          speed: ($ratios | median | hundredths), speed_least: ($ratios | min | hundredths),
          speed_most: ($ratios | max | hundredths), target: $least, met: (($ratios | median) >= $least)}]}' \
  "$records" >"$top/integration/out/copy_bench.json"
jq -r '"| from, to | rclone s | haulout s | speed beside rclone (least–most) | wanted | |", "|---|---:|---:|---:|---:|---|",
  (.comparisons[] | "| \(.name) | \(.rclone_seconds) | \(.haulout_seconds) | \(.speed) (\(.speed_least)–\(.speed_most)) | ≥ \(.target) | \(if .met then "met" else "MISSED" end) |"),
  "\n\(.haulout) beside \(.rclone)",
  "\(.stored_bytes / 1073741824 * 100 | round / 100) GiB of packs, \(.transfers) on their way, \(.cores) cores, \(.runs) runs of each pair, load average \(.load_least)–\(.load_most)"' \
  "$top/integration/out/copy_bench.json"
note "written to integration/out/copy_bench.json"
