#!/usr/bin/env bash
# Makes what the Dockerfile's last stage makes, without Docker: Debian in a folder, the stage's commands in it, and a program that was
# built here. Then a backup is restored in it, as the stage's user.
set -euo pipefail
. "$(dirname "$0")/../../integration/lib.sh"
. "$top/integration/unpacked.sh"

usage() {
  cat <<USAGE
usage: infra/check/image.sh PROGRAM

PROGRAM is a haulout that was built here. As root, on Debian bookworm: server and repository are of this machine's, whose MariaDB must be
of the image's series. Some two minutes.
USAGE
}

case ${1-} in
  -h | --help) usage; exit ;;
  '' | -*) usage >&2; exit 2 ;;
esac
program=$1
release=$(sed -n 's/^ARG DEBIAN=//p' "$top/infra/Dockerfile")

# The commands of the last stage's RUN, as a shell script.
stage() {
  awk '/^FROM /{ stage = ""; run = 0 }
    /^RUN /{ run = 1; sub(/^RUN /, "") }
    run { line = $0; more = sub(/\\$/, "", line); stage = stage line; if (!more) run = 0 }
    END { print stage }' "$top/infra/Dockerfile"
}

[ "$(id -u)" = 0 ] || die "debootstrap and chroot want to be run by root"
need_packages debootstrap

place=$(mktemp -d)
image=$place/image
cleanup() {
  stop_server TERM
  rm -rf "$place"
}
trap cleanup EXIT
chmod 755 "$place"

heading "Debian $release, and the last stage's commands"
# What it mounts is its own, and gone when it is.
run unshare --mount --propagation private debootstrap --variant=minbase "$release" "$image" >"$place/debootstrap.log" 2>&1 ||
  { tail -n 20 "$place/debootstrap.log" && die "debootstrap failed"; }
cp -r /etc/apt/apt.conf.d/. "$image/etc/apt/apt.conf.d/"
cp /etc/resolv.conf "$image/etc/resolv.conf"
commands=$(stage)
[[ $commands == *mariadb-backup* ]] || die "the Dockerfile's last stage has no RUN that installs mariadb-backup"
DEBIAN_FRONTEND=noninteractive chroot "$image" /bin/sh -euc "$commands" >"$place/stage.log" 2>&1 ||
  { tail -n 20 "$place/stage.log" && die "the last stage's commands failed"; }
install -m 755 "$program" "$image/usr/bin/haulout"

heading "a backup of this machine's server, restored in the image"
socket=$place/data.run/socket
make_datadir "$place/data"
start_server "$place/data" "$socket"
sql "CREATE DATABASE shop; USE shop; CREATE TABLE item AS SELECT seq AS id FROM seq_1_to_1000"
export HAULOUT_REPO=file://$image/repository HAULOUT_SOCKET=$socket HAULOUT_USER=root
"$program" --quiet init
"$program" --quiet backup
stop_server TERM
user=$(sed -n 's/^USER //p' "$top/infra/Dockerfile")
install -d -o "${user%:*}" -g "${user#*:}" -m 700 "$image/var/lib/mysql"
chown -R "$user" "$image/repository"
# The tools crash without /proc. The mounts are this command's alone, and end with it.
# shellcheck disable=SC2016 # the inner shell's
unshare --mount --propagation private /bin/sh -euc '
  mount -t proc proc "$1/proc"
  mount --bind "$1/var/lib/mysql" "$1/var/lib/mysql"
  exec chroot --userspec="$2" "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin TMPDIR=/var/cache/haulout \
    /usr/bin/haulout --repo file:///repository restore --datadir /var/lib/mysql
' restore "$image" "$user"
chown -R "$(server_account)" "$image/var/lib/mysql"
start_server "$image/var/lib/mysql" "$socket"
rows=$(sql "SELECT COUNT(*) FROM shop.item")
stop_server TERM
[ "$rows" = 1000 ] || die "the restored server has $rows rows and not 1000"
note "the image's last stage restores: $rows rows"
