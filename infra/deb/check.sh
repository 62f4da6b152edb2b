#!/usr/bin/env bash
# Makes the Debian package and holds what it installs: into a root of its own, as dpkg does it; this machine is left as it is.
set -euo pipefail
. "$(dirname "$0")/../../integration/lib.sh"

usage() {
  cat <<USAGE
usage: infra/deb/check.sh [--profile release|dev]

Installs the package (infra/deb/build.sh) into an empty root, runs the program from there, has man read its pages and bash its completions,
upgrades over a file in /etc that somebody has changed, removes and purges it; and asks apt whether this machine has what it depends on.
USAGE
}

case ${1-} in
  -h | --help) usage; exit ;;
esac

package=$("$top/infra/deb/build.sh" "$@")
[ -f "$package" ] || die "no package: $package"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
: >"$root/var/lib/dpkg/status"
# What it depends on is this machine's: the program runs from the other root all the same.
package_manager() { quiet dpkg --root="$root" --force-depends --force-not-root --force-confold "$@"; }
has() { [ -s "$root/$1" ] || die "the package does not install /$1"; }
# Of a build for release cargo-deb compresses pages.
has_page() { [ -s "$root/$1.gz" ] || has "$1"; }

[ "$(dpkg-deb --field "$package" Package)" = haulout ] || die "it is not called haulout"
[ "$(dpkg-deb --field "$package" Version | cut -d - -f 1)" = "$(sed -n 's/^version = "\(.*\)"/\1/p' "$top/Cargo.toml" | head -n 1)" ] ||
  die "its version is not that of Cargo.toml"
[[ $(dpkg-deb --field "$package" Depends) == *libc6* ]] || die "it does not depend on the C library"

package_manager --install "$package"
[ "$("$root/usr/bin/haulout" --version)" = "haulout $(dpkg-deb --field "$package" Version | cut -d - -f 1)" ] ||
  die "the installed program is another one"
for unit in "$top"/infra/systemd/*.service "$top"/infra/systemd/*.timer; do
  has "usr/lib/systemd/system/$(basename "$unit")"
done
has usr/lib/systemd/system/haulout-.service.d/hardening.conf
has usr/lib/systemd/system/haulout-agent.service.d/service.conf
# The example of settings is one.
has usr/share/doc/haulout/examples/haulout.toml
quiet "$root/usr/bin/haulout" --config "$root/usr/share/doc/haulout/examples/haulout.toml" config check
for file in alerts.yaml haulout.json; do
  has "usr/share/doc/haulout/examples/$file"
done
for page in README.md CHANGELOG.md RUNBOOK.md WEBHOOKS.md SETTINGS.md OUTPUT.md FORMAT.md ARCHITECTURE.md; do
  has_page "usr/share/doc/haulout/$page"
done

# What bash offers behind `haulout` and the letters $1.
offered() {
  # shellcheck disable=SC2016 # the shell that is started expands them
  bash --norc -c '. "$1"; COMP_WORDS=(haulout "$2") COMP_CWORD=1; _haulout haulout "$2" haulout; printf "%s\n" "${COMPREPLY[@]}"' \
    - "$root/usr/share/bash-completion/completions/haulout" "$1"
}
[ "$(offered restore-)" = restore-table ] || die "bash completes nothing: $(offered restore-)"
# Every command has a page that man can read.
has_page usr/share/man/man1/haulout.1
count=0
for command in $(offered '' | grep '^[a-z]'); do
  [ "$command" != help ] || continue
  has_page "usr/share/man/man1/haulout-$command.1"
  count=$((count + 1))
done
[ "$count" -gt 20 ] || die "only $count commands"
quiet man --warnings -l "$root"/usr/share/man/man1/haulout-restore.1*
grep -q 'haulout restore' "$scratch/said" || die "man shows nothing"

for file in "$top"/infra/systemd/etc/*.env; do
  has "etc/haulout/$(basename "$file")"
  [ "$(stat -c %a "$root/etc/haulout/$(basename "$file")")" = 600 ] || die "others may read $(basename "$file")"
done
echo HAULOUT_REPO=s3://somebody/else >"$root/etc/haulout/agent.env"
package_manager --install "$package"
[ "$(cat "$root/etc/haulout/agent.env")" = HAULOUT_REPO=s3://somebody/else ] || die "an upgrade overwrites what somebody has set"
package_manager --remove haulout
[ ! -e "$root/usr/bin/haulout" ] || die "removed, the program is still there"
[ -e "$root/etc/haulout/agent.env" ] || die "removed, what somebody has set is gone"
package_manager --purge haulout
left=$(find "$root" -path "$root/var/lib/dpkg" -prune -o -type f -print)
[ -z "$left" ] || die "purged, it leaves: $left"

said=$(apt-get install --simulate --no-install-recommends "$package" 2>&1) || { printf '%s\n' "$said" >&2 && die "apt cannot install it"; }
note "$(basename "$package") installs, upgrades, and goes without a trace"
