#!/usr/bin/env bash
# Unpacks MariaDB 10.5 of Debian bullseye into a folder, beside the MariaDB of this machine, and prints the folder of its
# programs: a server that haulout refuses. Quick when it is there already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/unpacked.sh"

usage() {
  cat <<USAGE
usage: integration/bullseye.sh

Prints a folder, to be put first on PATH.

Environment: HAULOUT_CACHE (default ~/.cache/haulout), where it is unpacked.
USAGE
}

case ${1-} in
  '') unpacked_mariadb 10.5 bullseye ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
