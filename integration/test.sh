#!/usr/bin/env bash
# Sets up what is missing and runs all tests, end to end on real MariaDB and on LocalStack too.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<USAGE
usage: integration/test.sh [--full] [arguments of cargo test]

--full  adds the long tests, and runs those that need a server a second time on MariaDB 11.8: see
        integration/trixie.sh

Environment: CARGO_TARGET_DIR; HAULOUT_CACHE (default ~/.cache/haulout) for what is installed outside the tree;
HAULOUT_TEST_S3_ENDPOINT for an S3-compatible server that runs already (keys test/test).
USAGE
}

full=''
case ${1-} in
  -h | --help) usage; exit ;;
  --full)
    full=yes
    export HAULOUT_TEST_FULL=1
    shift
    ;;
esac

scratch=$(mktemp -d "${TMPDIR:-/tmp}/haulout-test.XXXXXX")
# Some servers here are not root's.
chmod 711 "$scratch"
cleanup() {
  # What a test that was killed left behind is in here, too: tests make their folders under TMPDIR.
  "$top/localstack/run.sh" stop --dir "$scratch/localstack" 2>/dev/null || true
  rm -rf "$scratch"
}
trap cleanup EXIT
export TMPDIR=$scratch

heading "setting up"
"$top/integration/setup.sh" --s3 --plugins
find_cargo
if [ -n "$full" ]; then
  newer=$("$top/integration/trixie.sh")
  # For the tests that upgrade a server: where they find one, and where the other.
  export HAULOUT_TEST_OLDER_PATH=$PATH HAULOUT_TEST_NEWER_PATH=$newer:$PATH
  # For the one that sees a server refused.
  HAULOUT_TEST_OLD_PATH=$("$top/integration/bullseye.sh"):$PATH
  export HAULOUT_TEST_OLD_PATH
  "$top/integration/garage.sh" install >/dev/null
fi

heading "building"
cd "$top"
run cargo test --locked --no-run "$@"

if [ -z "${HAULOUT_TEST_S3_ENDPOINT-}" ]; then
  heading "starting LocalStack"
  HAULOUT_TEST_S3_ENDPOINT=$("$top/localstack/run.sh" start --port 0 --dir "$scratch/localstack" --until-exit-of $$)
  export HAULOUT_TEST_S3_ENDPOINT
fi
note "S3 endpoint: $HAULOUT_TEST_S3_ENDPOINT"

heading "testing"
started=$SECONDS
status=0
run cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$scratch/tests.log" || status=$?
if [ -n "$full" ]; then
  # Cargo refuses names of targets that are not there.
  again=(--test e2e)
  [ ! -d integration/judge ] || again+=(--test judge)
  heading "testing again, on $("$newer/mariadbd" --version | grep -o '[0-9.]*-MariaDB')"
  HAULOUT_TEST_PLUGINS=$newer/../root/usr/lib/mysql/plugin PATH=$newer:$PATH \
    run cargo test --locked --no-fail-fast "${again[@]}" "$@" 2>&1 | tee -a "$scratch/tests.log" ||
    status=$?
fi

awk -v seconds=$((SECONDS - started)) -v status="$status" '
  /^test result: / { passed += $4; failed += $6 }
  /^test .* FAILED$/ { print "failed: " $2 }
  END {
    printf "\n%d passed, %d failed in %d s\n", passed, failed, seconds
    if (status != 0 && failed == 0) print "cargo test itself failed: see above"
    if (passed == 0) exit 1
  }' "$scratch/tests.log"
if [ "$status" != 0 ]; then
  # At the end, where whoever sees no more than the end of a log finds it.
  heading "what the failed tests said"
  awk '
    /^---- .* stdout ----$/ { left = 30 }
    /^(failures:|test result: )/ { left = 0 }
    left-- > 0 { print substr($0, 1, 1000) }' "$scratch/tests.log"
fi
exit "$status"
