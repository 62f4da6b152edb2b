#!/usr/bin/env bash
# Unpacks MariaDB 11.8 of Debian trixie into a folder, beside the MariaDB of this machine, and prints the folder of its
# programs. Quick when it is there already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/unpacked.sh"

usage() {
  cat <<USAGE
usage: integration/trixie.sh

Prints a folder. Put it first on PATH, and the tests and haulout run on MariaDB 11.8:
  newer=\$(integration/trixie.sh)
  HAULOUT_TEST_PLUGINS=\$newer/../root/usr/lib/mysql/plugin PATH=\$newer:\$PATH cargo test --test e2e

Environment: HAULOUT_CACHE (default ~/.cache/haulout), where it is unpacked.
USAGE
}

case ${1-} in
  '') unpacked_mariadb 11.8 trixie ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
