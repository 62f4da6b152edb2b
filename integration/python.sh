#!/usr/bin/env bash
# Unpacks Python 3.13 of Debian trixie into a folder, for machines that have none, and prints its path. Quick when it is
# there already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/unpacked.sh"

usage() {
  cat <<USAGE
usage: integration/python.sh

Prints the path of a Python 3.13. It can make virtual environments without pip: another Python's \`pip --python\` fills them.

Environment: HAULOUT_CACHE (default ~/.cache/haulout), where it is unpacked.
USAGE
}

unpacked_python() {
  local folder=$cache/python-3.13 lock
  # Not the lock of the other installations: who wants a Python may hold it.
  mkdir -p "$cache"
  exec {lock}>"$cache/python.lock"
  flock "$lock"
  if [ ! -e "$folder/.complete" ]; then
    {
      heading "unpacking Python 3.13 of Debian trixie into $folder"
      need_packages debootstrap
      rm -rf "$folder"
      mkdir -p "$folder/root"
      unpack_release "$folder" trixie python3.13
    } >&2
    wrap_python "$folder/root"
    touch "$folder/.complete"
  fi
  exec {lock}>&-
  "$folder/root/usr/bin/python" -c 'import ctypes, sqlite3, ssl, venv'
  printf '%s\n' "$folder/root/usr/bin/python"
}

# Makes $1/usr/bin/python. It lies where the library is looked for, beside it, and passes on the name by which it was called,
# by which a virtual environment knows itself.
wrap_python() {
  local root=$1
  find_loader "$root"
  cat >"$root/usr/bin/python" <<SCRIPT
#!/bin/sh
exec ${loader@Q} --argv0 "\$0" --library-path ${libraries@Q} ${root@Q}/usr/bin/python3.13 "\$@"
SCRIPT
  chmod 755 "$root/usr/bin/python"
}

case ${1-} in
  '') unpacked_python ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
