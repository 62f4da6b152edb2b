#!/usr/bin/env bash
# Makes the Debian package, and prints its path.
set -euo pipefail
. "$(dirname "$0")/../../integration/lib.sh"

readonly cargo_deb_version=3.8.0

usage() {
  cat <<USAGE
usage: infra/deb/build.sh [--profile release|dev]

Builds haulout, has it write its manual pages and completions, and packs them with the units of infra/systemd: README has how it is installed.
cargo-deb $cargo_deb_version comes into \${HAULOUT_CACHE:-~/.cache/haulout} first (some minutes). Environment: CARGO_TARGET_DIR.
USAGE
}

profile=release
while [ $# -gt 0 ]; do
  case $1 in
    --profile) profile=${2:?--profile wants a name}; shift 2 ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done
case $profile in
  release) folder=$target/release ;;
  dev) folder=$target/debug ;;
  *) usage >&2; exit 2 ;;
esac

find_cargo
cd "$top"
root=$cache/cargo-deb-$cargo_deb_version
if [ ! -x "$root/bin/cargo-deb" ]; then
  note "installing cargo-deb $cargo_deb_version into $root" >&2
  CARGO_TARGET_DIR=$root/target run cargo install cargo-deb --quiet --locked --version "$cargo_deb_version" --root "$root" >&2
  rm -rf "$root/target"
fi
run cargo build --quiet --locked --profile "$profile"
rm -rf "$folder/deb"
mkdir -p "$folder/deb/man"
"$folder/haulout" --quiet man --out "$folder/deb/man"
"$folder/haulout" completions bash >"$folder/deb/haulout.bash"
"$folder/haulout" completions zsh >"$folder/deb/_haulout"
"$folder/haulout" completions fish >"$folder/deb/haulout.fish"
PATH=$root/bin:$PATH run cargo deb --quiet --locked --no-build --profile "$profile" --output "$target/debian/"
