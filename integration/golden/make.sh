#!/usr/bin/env bash
# How a golden repository is made: for people, never run by a test. Golden files are added, never edited.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

usage() {
  cat <<USAGE
usage: integration/golden/make.sh NAME [sealed]

Makes integration/golden/NAME, which must not be there: a repository with a full and two incremental backups of a small
scratch server that is worked on in between. With \`sealed\` it is sealed, and keys that open it lie beside it. Then run \`cargo test --test golden\`: it fails, because expected.json is
missing, and says where it has put one. Look at it, and copy it to integration/golden/NAME/expected.json.

Environment: CARGO_TARGET_DIR; HAULOUT_BIN for a haulout that is built already.
USAGE
}

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${1#-}" != "$1" ] || [ "${2-sealed}" != sealed ]; then
  usage >&2
  exit 2
fi
golden=$top/integration/golden/$1
[ ! -e "$golden" ] || die "$golden is there: golden files are never edited"
haulout=${HAULOUT_BIN:-$target/debug/haulout}

# Manifests and leases bear the host's name, which is nobody's business.
[ "$(uname -n)" = golden ] || exec unshare --uts -- bash -c 'hostname golden && exec "$@"' - "$0" "$@"

scratch=$(mktemp -d /tmp/haulout-golden.XXXXXX)
chmod 755 "$scratch"
datadir=$scratch/data
socket=$datadir.run/socket
cleanup() {
  stop_server KILL
  rm -rf "$scratch"
}
trap cleanup EXIT

sql() { mariadb --no-defaults --socket="$socket" --user=root --execute="$1" ${2:+"$2"}; }
# zstd's best level, because the files stay in the history of this project for ever.
backup() {
  "$haulout" --repo "file://$golden/repository" --no-progress backup "$@" --compression-level 19 \
    --socket="$socket" --user=root
}

make_run_folder "$datadir"
mariadb-install-db --no-defaults --datadir="$datadir" --user="$(server_account)" --tmpdir="$datadir.run" --skip-test-db \
  --auth-root-authentication-method=normal --skip-name-resolve --innodb-log-file-size=8M \
  --innodb-data-file-path='ibdata1:5M;ibdata2:5M:autoextend' >/dev/null
start() {
  start_server "$datadir" "$socket" --server-id=7 --log-bin=binlog --innodb-log-file-size=8M \
    --innodb-data-file-path='ibdata1:5M;ibdata2:5M:autoextend' --innodb-buffer-pool-size=16M --innodb-undo-tablespaces=2
}
start

# What no test looks at, and what would be half of the repository.
sql 'DROP DATABASE sys; TRUNCATE mysql.help_topic; TRUNCATE mysql.help_keyword; TRUNCATE mysql.help_relation;
  TRUNCATE mysql.help_category'

# "long" has more than four extents, and "log" more than four pieces: they get map blocks of their own. No
# server makes such a .par file, but the backup tool takes it along, and it has a stretch of zeros.
sql "CREATE DATABASE shop; USE shop;
  CREATE TABLE orders (id INT PRIMARY KEY, item VARCHAR(40), KEY (item)) ENGINE=InnoDB;
  INSERT INTO orders SELECT seq, CONCAT('item ', seq % 50) FROM seq_1_to_400;
  CREATE TABLE \`long\` (id INT PRIMARY KEY, text VARCHAR(7000)) ENGINE=InnoDB CHARACTER SET latin1;
  INSERT INTO \`long\` SELECT seq, REPEAT('x', 7000) FROM seq_1_to_800;
  CREATE TABLE small (id INT PRIMARY KEY, text VARCHAR(200)) ENGINE=InnoDB ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4;
  INSERT INTO small SELECT seq, REPEAT('s', 100) FROM seq_1_to_200;
  CREATE TABLE holes (id INT PRIMARY KEY, text VARCHAR(200)) ENGINE=InnoDB PAGE_COMPRESSED=1;
  INSERT INTO holes SELECT seq, REPEAT('h', 100) FROM seq_1_to_200;
  CREATE TABLE log (line CHAR(250)) ENGINE=MyISAM;
  INSERT INTO log SELECT 'a line as any other' FROM seq_1_to_21000;
  CREATE TABLE aria (id INT) ENGINE=Aria; INSERT INTO aria VALUES (1);
  SELECT REPEAT(CHAR(0), 1500000) INTO DUMPFILE 'shop/zeros.par';
  CREATE TABLE gone (id INT) ENGINE=InnoDB; CREATE TABLE emptied (id INT) ENGINE=InnoDB;
  INSERT INTO emptied SELECT seq FROM seq_1_to_100"
# Brings changes from the redo log to the pages.
restart() {
  stop_server TERM
  start
}
restart
sql "INSERT INTO shop.orders VALUES (401, 'one more')"
if [ "${2-}" = sealed ]; then
  # A slot of each method and sort. The keys lie beside the repository: nobody else has data in it.
  mkdir -p "$golden/keys"
  printf '%064d\n' 1 >"$golden/keys/file"
  head -c 48 /dev/urandom >"$golden/keys/map-file"
  echo 'a golden passphrase' >"$golden/keys/passphrase"
  echo 'tr g-v 0-9a-f' >"$golden/keys/command"
  export HAULOUT_KEY_FILE=$golden/keys/file
  "$haulout" --repo "file://$golden/repository" init --encrypt --label 'key file'
  "$haulout" --repo "file://$golden/repository" key add --new-passphrase-file "$golden/keys/passphrase" --label passphrase
  "$haulout" --repo "file://$golden/repository" key add --new-key-file "$golden/keys/map-file" --map --label maps
  "$haulout" --repo "file://$golden/repository" key add --label command \
    --new-key-command 'tr 0-9a-f g-v' --key-command "$(cat "$golden/keys/command")"
else
  "$haulout" --repo "file://$golden/repository" init
fi
backup --full

sql "USE shop; UPDATE orders SET item = 'changed' WHERE id IN (7, 390);
  UPDATE \`long\` SET text = 'changed' WHERE id = 400;
  DROP TABLE gone; TRUNCATE emptied; RENAME TABLE small TO tiny;
  CREATE TABLE fresh (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO fresh SELECT seq FROM seq_1_to_50;
  INSERT INTO log VALUES ('the last line'); INSERT INTO aria VALUES (2)"
restart
sql "INSERT INTO shop.fresh VALUES (70)"
backup --incremental

sql "USE shop; ALTER TABLE orders ADD note INT DEFAULT 5; UPDATE orders SET note = 6 WHERE id < 10;
  UPDATE \`long\` SET text = 'changed again' WHERE id IN (400, 799);
  CREATE DATABASE empty_schema"
restart
sql "USE shop; RENAME TABLE fresh TO old, tiny TO fresh;
  INSERT INTO holes VALUES (1000, 'more')"
backup --incremental

sql 'CHECKSUM TABLE shop.orders, shop.long, shop.holes, shop.log, shop.aria, shop.emptied, shop.old, shop.fresh'
stop_server TERM
du -sh --apparent-size "$golden"
find "$golden" -type f -printf '%s %P\n' | sort -k2
