#!/usr/bin/env bash
# Prints a folder with the server's plugins that the tests load, and fetches it when it is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/plugins.sh

The packages with them would bring a service, an account and a datadir, so they are unpacked into a folder of their own
under HAULOUT_CACHE (default ~/.cache/haulout), in the version of the server that is installed.
HAULOUT_TEST_PLUGINS names a folder to be used instead.
USAGE
}

case ${1-} in
  '') ;;
  -h | --help) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

readonly wanted=(file_key_management.so ha_archive.so ha_rocksdb.so)

complete() {
  local plugin
  for plugin in "${wanted[@]}"; do
    [ -e "$1/$plugin" ] || return 1
  done
}

if [ -n "${HAULOUT_TEST_PLUGINS-}" ]; then
  complete "$HAULOUT_TEST_PLUGINS" || die "$HAULOUT_TEST_PLUGINS lacks one of: ${wanted[*]}"
  printf '%s\n' "$HAULOUT_TEST_PLUGINS"
  exit
fi
for folder in /usr/lib/mysql/plugin /usr/lib64/mysql/plugin; do
  if complete "$folder"; then
    printf '%s\n' "$folder"
    exit
  fi
done
version=$(dpkg-query -W -f '${Version}' mariadb-server-core) || die "mariadb-server-core is not installed"
folder=$cache/plugins-${version//[^0-9A-Za-z.+-]/_}
if ! complete "$folder"; then
  mkdir -p "$cache"
  making=$(mktemp -d "$cache/plugins.XXXXXX")
  trap 'rm -rf "$making"' EXIT
  # Where packages are unpacked, apt's own account may not write; that is only worth a warning to it.
  (cd "$making" && apt-get -qq download "mariadb-server=$version" "mariadb-plugin-rocksdb=$version") >&2 ||
    die "no packages of version $version: run apt-get update, or install the newest mariadb-server-core"
  for package in "$making"/*.deb; do
    dpkg-deb --extract "$package" "$making/unpacked"
  done
  complete "$making/unpacked/usr/lib/mysql/plugin" || die "the packages of $version lack one of: ${wanted[*]}"
  # Another run may have been quicker; its folder is as good.
  mv -T "$making/unpacked/usr/lib/mysql/plugin" "$folder" 2>/dev/null || complete "$folder"
fi
printf '%s\n' "$folder"
