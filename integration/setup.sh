#!/usr/bin/env bash
# Installs what the scripts here need and this machine lacks. Quick when nothing is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/setup.sh [--s3] [--agent] [--ci] [--bench] [--copy-bench] [--plugins]

Installs MariaDB's server and backup tool, a C compiler (parts of the object store's TLS and zstd are C), and:
--s3       what localstack/run.sh needs
--agent    what integration/quickstart.sh --agent needs beyond that
--ci       what .ci/run needs beyond that
--bench    what integration/bench.sh needs beyond that
--copy-bench  what integration/copy_bench.sh needs beyond that
--plugins  the server's plugins that the tests load (integration/plugins.sh), Galera's library (integration/galera.sh), and mariadb-dump
USAGE
}

s3='' agent='' ci='' bench='' copy_bench='' plugins=''
for argument; do
  case $argument in
    --s3) s3=yes ;;
    --agent) agent=yes ;;
    --ci) ci=yes ;;
    --bench) bench=yes ;;
    --copy-bench) copy_bench=yes ;;
    --plugins) plugins=yes ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done

missing=()
# Notes package $2 for installation, once, when command $1 is not there.
need() {
  command -v "$1" >/dev/null || [[ " ${missing[*]-} " == *" $2 "* ]] || missing+=("$2")
}

# The -core packages hold the programs without a service, an account or a datadir: only scratch servers run here.
need mariadbd mariadb-server-core
need mariadb-install-db mariadb-server-core
need mariadb mariadb-client-core
need mariadb-backup mariadb-backup
need mbstream mariadb-backup
need zstd zstd
need setpriv util-linux
need script bsdutils
need gcc gcc
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
if [ -n "$s3" ] && ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
  missing+=(python3-venv)
fi
if [ -n "$agent" ]; then
  need curl curl
  need jq jq
fi
if [ -n "$ci" ]; then
  need shellcheck shellcheck
  need systemd-analyze systemd
  need dpkg-shlibdeps dpkg-dev
  need man man-db
  # What opens the page (integration/browser.sh).
  need chromium chromium
  need node nodejs
  need npm npm
  need curl curl
  need jq jq
  need promtool prometheus
fi
if [ -n "$bench" ]; then
  need sysbench sysbench
  need jq jq
  [ -z "$s3" ] || need aws awscli
fi
if [ -n "$copy_bench" ]; then
  need jq jq
  need rclone rclone
fi
if [ -n "$plugins" ]; then
  # A page of the runbook dumps a table.
  need mariadb-dump mariadb-client
  # Libraries that RocksDB's plugin wants.
  ldconfig -p | grep -q 'libsnappy\.so\.1 ' || missing+=(libsnappy1v5)
  ldconfig -p | grep -q 'liblz4\.so\.1 ' || missing+=(liblz4-1)
fi

install_missing() {
  local policy=/usr/sbin/policy-rc.d
  [ "$(id -u)" = 0 ] || die "missing: ${missing[*]}; install them, or run this as root"
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; only Debian's packages can be installed from here"
  heading "installing ${missing[*]}"
  # No package may start a service for our sake.
  if [ ! -e "$policy" ]; then
    # shellcheck disable=SC2064 # the path of now is meant
    trap "rm -f '$policy'" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  # Another database's packages would have to give way: that is not ours to decide, hence --no-remove.
  apt-get -qq install --yes --no-install-recommends --no-remove "${missing[@]}" >/dev/null
}

[ ${#missing[@]} -eq 0 ] || install_missing
[ -z "$s3" ] || [ -n "${HAULOUT_TEST_S3_ENDPOINT-}" ] || "$top/localstack/run.sh" install
[ -z "$plugins" ] || "$top/integration/plugins.sh" >/dev/null
# Not every distribution has it; the test that wants it says so.
[ -z "$plugins" ] || "$top/integration/galera.sh" >/dev/null || true
find_cargo
