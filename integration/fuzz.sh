#!/usr/bin/env bash
# Runs the fuzz targets of integration/fuzz, each for a while, and tells what they did.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

readonly cargo_fuzz_version=0.13.2
# Longest input that is made up, a page of 64 KiB and some: longer ones are slower and find no more.
readonly input_bytes_max=$((68 << 10))
# Limits for one input: the slowest of the corpus takes some milliseconds, and the largest directory of a pack 32 MiB.
readonly input_seconds_max=10 memory_mib_max=1024

usage() {
  cat <<USAGE
usage: integration/fuzz.sh [--seconds N] [TARGET...]

Runs each target for N seconds (60), all of them if none is named. What a target finds beyond the corpus is kept in
integration/out/fuzz/TARGET and is where the next run goes on; inputs that break a promise are kept in integration/out/crashes/TARGET.
Ends with 1 if there are any new ones.

Environment: CARGO_TARGET_DIR; HAULOUT_CACHE (default ~/.cache/haulout) for what is installed outside the tree.
Needs a C++ compiler for libFuzzer; the compiler of Rust may be the stable one.
USAGE
}

seconds=60
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds wants a number}; shift 2 ;;
    -h | --help) usage; exit ;;
    -*) usage >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }

find_cargo
command -v c++ >/dev/null || die "a C++ compiler is missing: install g++"
fuzz=$top/integration/fuzz
known=$(sed -n 's|^path = "targets/\(.*\)\.rs"$|\1|p' "$fuzz/Cargo.toml")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets <<<"$known"
for name in "${targets[@]}"; do
  grep -qx "$name" <<<"$known" || die "no target $name; there are: ${known//$'\n'/, }"
done

install_cargo_fuzz() {
  local root=$cache/cargo-fuzz-$cargo_fuzz_version
  if [ ! -x "$root/bin/cargo-fuzz" ]; then
    note "installing cargo-fuzz $cargo_fuzz_version into $root (a minute)"
    CARGO_TARGET_DIR=$root/target run cargo install cargo-fuzz --quiet --locked --version "$cargo_fuzz_version" \
      --root "$root"
    rm -rf "$root/target"
  fi
  PATH=$root/bin:$PATH
}

heading "building"
install_cargo_fuzz
cd "$top"
# No sanitizer: there is no unsafe code to watch, and the heap is counted by the targets themselves. Without one, the
# stable compiler will do.
cargo fetch --quiet --locked --manifest-path "$fuzz/Cargo.toml"
for name in "${targets[@]}"; do
  run cargo fuzz build --fuzz-dir "$fuzz" --target-dir "$target/fuzz" --sanitizer none "$name"
done
triple=$(rustc -vV | sed -n 's/^host: //p')

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-fuzz.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# The last value of counter $1 in libFuzzer's log $2.
counter() { grep -oE "$1: +[0-9]+" "$2" | tail -n 1 | grep -oE '[0-9]+$' || echo 0; }

printf '%-10s %8s %12s %12s %9s %8s\n' target seconds executions per_second coverage crashes >"$scratch/table"
crashes_all=0
for name in "${targets[@]}"; do
  heading "$name, $seconds s"
  found=$top/integration/out/fuzz/$name crashes=$top/integration/out/crashes/$name
  mkdir -p "$found" "$crashes"
  before=$(find "$crashes" -type f | wc -l)
  options=(-max_total_time="$seconds" -timeout="$input_seconds_max" -rss_limit_mb="$memory_mib_max" -max_len="$input_bytes_max"
    -artifact_prefix="$crashes/" -print_final_stats=1)
  dictionary=$fuzz/dictionaries/$name.dict
  [ ! -e "$dictionary" ] || options+=(-dict="$dictionary")
  began=$SECONDS
  # Not by way of `cargo fuzz run`, which would look at all sources again. A target that found something ends with another code.
  "$target/fuzz/$triple/release/$name" "${options[@]}" "$found" "$fuzz/corpus/$name" >"$scratch/log" 2>&1 || true
  took=$((SECONDS - began))
  after=$(find "$crashes" -type f | wc -l)
  executions=$(counter stat::number_of_executed_units "$scratch/log")
  [ "$executions" -gt 0 ] || { tail -n 20 "$scratch/log" >&2 && die "$name did not run"; }
  if [ "$after" -gt "$before" ]; then
    crashes_all=$((crashes_all + after - before))
    grep -A 3 -E "panicked at|ERROR: libFuzzer" "$scratch/log" | tail -n 12 >&2 || true
    find "$crashes" -type f -newer "$scratch/table" >&2
  fi
  printf '%-10s %8d %12d %12d %9d %8d\n' "$name" "$took" "$executions" $((executions / (took > 0 ? took : 1))) \
    "$(counter cov "$scratch/log")" $((after - before)) | tee -a "$scratch/table"
done

heading "in all"
cat "$scratch/table"
[ "$crashes_all" -eq 0 ]
