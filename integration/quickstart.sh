#!/usr/bin/env bash
# haulout from nothing to a restored server, on a scratch server of its own. Shows each command that it runs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/quickstart.sh [--s3] [--agent]

Backs a scratch server up (a full backup, then two incremental ones), destroys it, restores it and compares every
table. The repository is a folder; with --s3 it is a bucket on LocalStack. Nothing outlives the script but what it
installs: MariaDB's programs, and LocalStack under \${HAULOUT_CACHE:-~/.cache/haulout}.

With --agent nobody types a backup: an agent keeps the server protected, its page says until when, a run is begun through its API, and the
server is restored by the command that the page has.

Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already.
USAGE
}

s3='' agent=''
for argument; do
  case $argument in
    --s3) s3=yes ;;
    --agent) agent=yes ;;
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
  [ -z "${agent_pid-}" ] || { kill "$agent_pid" && wait "$agent_pid"; } 2>/dev/null || true
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
"$top/integration/setup.sh" ${s3:+--s3} ${agent:+--agent}
find_haulout
run haulout --version

heading "2. A scratch server with some data"
note "datadir $datadir, socket $socket, account $(server_account); it listens on no port"
make_datadir "$datadir"
# An agent archives the binary log, too.
start_server "$datadir" "$socket" ${agent:+--log-bin --server-id=1}
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

changes() {
  sql <<'SQL'
USE shop;
UPDATE purchase SET cents = cents + 1 WHERE id % 100 = 0;
CREATE TABLE refund (id INT PRIMARY KEY, reason TEXT);
INSERT INTO refund SELECT seq, REPEAT('because ', 20) FROM seq_1_to_3000;
ALTER TABLE customer ADD COLUMN email VARCHAR(80) DEFAULT 'none@example.org', ALGORITHM=INSTANT;
RENAME TABLE campaign TO campaign_of_last_year;
SQL
}
owner=$(server_account):$(id -gn "$(server_account)")

# Kills the server, deletes its datadir, runs a restore, and compares all tables.
disaster() {
  checksums >"$scratch/before"
  note "kill -9 $server_pid"
  stop_server KILL
  run rm -rf "$datadir"
  timed "restore" "$@"
  start_server "$datadir" "$socket"
  checksums >"$scratch/after"
  run diff "$scratch/before" "$scratch/after" || die "FAILED: the tables above differ"
  awk '{ printf "   %-24s checksum %12s  equal\n", $1, $2 }' "$scratch/after"
  [ -s "$scratch/after" ] || die "FAILED: there are no tables"
}

finish() {
  heading "Times"
  printf '%s\n' "${timings[@]}"
  printf '\nOK: %d tables restored and equal, from %s, in %s s all told\n' "$(wc -l <"$scratch/after")" "$repository" \
    "$(seconds_between "$began" "$(now)")"
}

if [ -n "$agent" ]; then
  address=127.0.0.1:8321
  api=http://$address/api/v1

  heading "4. An agent, by one file"
  write_agent_settings "$scratch" "$repository" "$address" <<'TOML'
[agent.backup]
schedule = "0 * * * *"
full_every = "7d"

[agent.drill]
schedule = "30 5 * * 0"
TOML
  sed 's/^/   /' "$scratch/haulout.toml"
  unset HAULOUT_REPO
  export HAULOUT_CONFIG=$scratch/haulout.toml
  run haulout config check
  note "haulout agent &"
  start_agent

  heading "5. It takes the first backup at once, since there is none"
  await runs '[.recent[] | select(.job == "backup" and .outcome == "succeeded")] | length == 1' "no backup came"
  asked runs '.recent[] | "   \(.job): \(.message)"'

  heading "6. Changes and DDL; another backup and a drill are begun through the page's API"
  changes
  begin_run() {
    local job=$1 number
    note "curl -H 'Authorization: Bearer …' $api/runs -d '{\"job\": \"$job\"}'"
    number=$(curl --silent --show-error --fail -H "Authorization: Bearer $(cat "$scratch/token")" \
      -H 'Content-Type: application/json' "$api/runs" -d "{\"job\": \"$job\"}" | jq .run)
    await runs "[.recent[] | select(.run == $number)] | length == 1" "the $job did not end"
    asked runs ".recent[] | select(.run == $number) | \"   \(.job) \(.outcome): \(.message)\""
    asked runs ".recent[] | select(.run == $number) | .outcome == \"succeeded\"" >/dev/null || die "FAILED: the $job"
  }
  begin_run backup
  begin_run drill

  heading "7. The page: http://$address/"
  await fleet '.servers[0] | .severity == "fine" and .backups == 2 and .last_proven != null' "the page does not call the server fine"
  asked fleet '.servers[0] | "   \(.host): \(.standing). Protected until \(.protected_until), restorable since \(.oldest_restorable), last proven \(.last_proven), in \(.rto_seconds) s"'
  server=$(asked fleet '.servers[0].slug')
  backup=$(asked "servers/$server" '.all_backups | max_by(.started) | .id')
  command=$(asked "servers/$server/backups/$backup" .restore_command)
  note "its command: $command"

  heading "8. Disaster, and the page's command"
  note "this scratch server's account is $owner, which is put in the place of mysql:mysql"
  read -r -a words <<<"${command/mysql:mysql/$owner}"
  disaster "${words[@]}"
  heading "9. The agent goes on, with the restored server, and ends when it is told to"
  begin_run backup
  stop_agent
  finish
  exit
fi

heading "4. A full backup"
timed "full backup" haulout backup --full --socket "$socket" --user root

heading "5. Changes and DDL, then an incremental backup"
changes
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

heading "8. Disaster: the server is killed and its datadir deleted; each page is fetched once, one prepare, moved in"
disaster haulout restore --backup latest --datadir "$datadir" --owner "$owner"
finish
