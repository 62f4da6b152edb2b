#!/usr/bin/env bash
# Prints the path of Galera's library, and fetches it when it is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/galera.sh

The library that makes a server a node of a cluster (package galera-4). It is unpacked into a folder of its own under HAULOUT_CACHE
(default ~/.cache/haulout): nothing is installed. HAULOUT_TEST_GALERA names a library to be used instead.
USAGE
}

case ${1-} in
  '') ;;
  -h | --help) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

for library in "${HAULOUT_TEST_GALERA-}" /usr/lib/galera/libgalera_smm.so /usr/lib64/galera-4/libgalera_smm.so; do
  if [ -n "$library" ] && [ -e "$library" ]; then
    printf '%s\n' "$library"
    exit
  fi
done
[ -z "${HAULOUT_TEST_GALERA-}" ] || die "there is no $HAULOUT_TEST_GALERA"
command -v apt-get >/dev/null || die "only Debian's package can be fetched from here"
folder=$cache/galera-4
library=$folder/usr/lib/galera/libgalera_smm.so
if [ ! -e "$library" ]; then
  mkdir -p "$cache"
  making=$(mktemp -d "$cache/galera.XXXXXX")
  trap 'rm -rf "$making"' EXIT
  # Where packages are unpacked, apt's own account may not write; that is only worth a warning to it.
  (cd "$making" && apt-get -qq download galera-4) >&2 || die "no package galera-4: run apt-get update"
  dpkg-deb --extract "$making"/galera-4_*.deb "$making/unpacked"
  [ -e "$making/unpacked/usr/lib/galera/libgalera_smm.so" ] || die "the package galera-4 lacks its library"
  # Another run may have been quicker; its folder is as good.
  mv -T "$making/unpacked" "$folder" 2>/dev/null || [ -e "$library" ]
fi
printf '%s\n' "$library"
