#!/usr/bin/env bash
# haulout from nothing to a restored server, on a scratch server of its own. Shows each command that it runs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/quickstart.sh [--s3]

Backs a scratch server up (a full backup, then two incremental ones), destroys it, restores it and compares every
table. The repository is a folder; with --s3 it is a bucket on LocalStack. Nothing outlives the script but what it
installs: MariaDB's programs, and LocalStack under \${HAULOUT_CACHE:-~/.cache/haulout}.

Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already.
USAGE
}

s3=''
for argument; do
  case $argument in
    --s3) s3=yes ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
began=$(now)

scratch=$(mktemp -d /tmp/haulout-quickstart.XXXXXX)
# As root the server runs as another account, which must get in here.
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
cleanup() {
  stop_server KILL
  [ -z "$s3" ] || "$top/localstack/run.sh" stop --dir "$scratch/localstack" 2>/dev/null || true
  rm -rf "$scratch"
}
trap cleanup EXIT

# Runs a command, shows it, and notes its time under the name $1.
timings=()
timed() {
  local name=$1 start
  shift
  start=$(now)
  run "$@"
  timings+=("$(printf '   %-24s %8s s' "$name" "$(seconds_between "$start" "$(now)")")")
}

heading "1. What is needed: MariaDB's programs, and haulout"
"$top/integration/setup.sh" ${s3:+--s3}
find_cargo
if [ -n "${HAULOUT_BIN-}" ]; then
  PATH=$(dirname "$HAULOUT_BIN"):$PATH
else
  run cargo build --release --locked --manifest-path "$top/Cargo.toml"
  PATH=$target/release:$PATH
fi
run haulout --version

heading "2. A scratch server with some data"
note "datadir $datadir, socket $socket, account $(server_account); it listens on no port"
make_datadir "$datadir"
start_server "$datadir" "$socket"
sql <<'SQL'
CREATE DATABASE shop;
USE shop;
CREATE TABLE customer (id INT PRIMARY KEY, name VARCHAR(80), city VARCHAR(40), KEY (city));
INSERT INTO customer SELECT seq, CONCAT('customer ', seq), ELT(1 + seq % 4, 'Reykjavik', 'Lisbon', 'Oslo', 'Lima')
  FROM seq_1_to_20000;
CREATE TABLE purchase (id INT AUTO_INCREMENT PRIMARY KEY, customer INT, cents INT, note VARCHAR(200), KEY (customer));
INSERT INTO purchase (customer, cents, note) SELECT 1 + seq % 20000, seq * 37 % 10000, REPEAT(MD5(seq), 4)
  FROM seq_1_to_150000;
CREATE TABLE visit ENGINE=Aria AS SELECT seq AS id, MD5(seq) AS page FROM seq_1_to_5000;
CREATE TABLE campaign AS SELECT seq AS id, MD5(seq * 7) AS code FROM seq_1_to_1000;
SQL
note "tables: $(sql 'SHOW TABLES IN shop' | tr '\n' ' ')"

heading "3. A repository"
if [ -n "$s3" ]; then
  endpoint=$("$top/localstack/run.sh" start --port 0 --dir "$scratch/localstack" --until-exit-of $$)
  "$top/localstack/run.sh" bucket backups --dir "$scratch/localstack"
  # What the shell that this is run from knows of other stores must not be used here.
  unset AWS_PROFILE AWS_SESSION_TOKEN AWS_DEFAULT_REGION AWS_CA_BUNDLE
  export AWS_ENDPOINT_URL=$endpoint AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
  note "AWS_ENDPOINT_URL=$endpoint AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1"
  repository=s3://backups/shop
else
  repository=file://$scratch/repository
fi
export HAULOUT_REPO=$repository
note "HAULOUT_REPO=$repository"
run haulout init

heading "4. A full backup"
timed "full backup" haulout backup --full --socket "$socket" --user root

heading "5. Changes and DDL, then an incremental backup"
sql <<'SQL'
USE shop;
UPDATE purchase SET cents = cents + 1 WHERE id % 100 = 0;
CREATE TABLE refund (id INT PRIMARY KEY, reason TEXT);
INSERT INTO refund SELECT seq, REPEAT('because ', 20) FROM seq_1_to_3000;
ALTER TABLE customer ADD COLUMN email VARCHAR(80) DEFAULT 'none@example.org', ALGORITHM=INSTANT;
RENAME TABLE campaign TO campaign_of_last_year;
SQL
timed "first incremental" haulout backup --incremental --socket "$socket" --user root

heading "6. More of both, then an incremental backup on the incremental one"
sql <<'SQL'
USE shop;
DELETE FROM customer WHERE id % 7 = 0;
DROP TABLE campaign_of_last_year;
CREATE TABLE campaign AS SELECT seq AS id, MD5(seq * 11) AS code FROM seq_1_to_500;
TRUNCATE TABLE refund;
INSERT INTO refund VALUES (1, 'goodwill');
ALTER TABLE purchase FORCE;
UPDATE visit SET page = 'home' WHERE id < 100;
SQL
timed "second incremental" haulout backup --incremental --socket "$socket" --user root

heading "7. The lineage"
run haulout list

heading "8. Disaster: the server is killed and its datadir deleted"
checksums >"$scratch/before"
note "kill -9 $server_pid"
stop_server KILL
run rm -rf "$datadir"

heading "9. Restore: each page fetched once, one prepare, moved in"
owner=$(server_account)
timed "restore" haulout restore --backup latest --datadir "$datadir" --owner "$owner:$(id -gn "$owner")"

heading "10. The server starts on what was restored"
start_server "$datadir" "$socket"
checksums >"$scratch/after"
run diff "$scratch/before" "$scratch/after" || die "FAILED: the tables above differ"
awk '{ printf "   %-24s checksum %12s  equal\n", $1, $2 }' "$scratch/after"
[ -s "$scratch/after" ] || die "FAILED: there are no tables"

heading "Times"
printf '%s\n' "${timings[@]}"
printf '\nOK: %d tables restored and equal, from %s, in %s s all told\n' "$(wc -l <"$scratch/after")" "$repository" \
  "$(seconds_between "$began" "$(now)")"
