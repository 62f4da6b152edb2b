#!/usr/bin/env bash
# Checks what lies in this folder with the programs that it is for, as far as they run without a cloud, a cluster and Docker.
set -euo pipefail
. "$(dirname "$0")/../integration/lib.sh"

readonly infra=$top/infra
export PYTHONDONTWRITEBYTECODE=1
# Exposure by `systemd-analyze security`, in tenths of 100 (0 is none, 10 all): what the units have, and a little.
readonly exposure_max=20

usage() {
  cat <<USAGE
usage: infra/check.sh

Terraform, Helm, Kubernetes' schemas and hadolint come as packages of Python, of the versions in infra/check/requirements.txt, into a
virtual environment in \${HAULOUT_CACHE:-~/.cache/haulout}; systemd-analyze and cargo are this machine's.
HAULOUT_UPDATE_SNAPSHOTS=1 writes infra/helm/rendered.json anew.
USAGE
}

case ${1-} in
  '') ;;
  -h | --help) usage; exit ;;
  *) usage >&2; exit 2 ;;
esac

# Sets `venv` to the environment of these requirements, made first where need be. False where the packages have no build for
# this machine.
make_venv() {
  local requirements=$infra/check/requirements.txt stamp lock
  [ "$(uname -sm)" = 'Linux x86_64' ] || return 1
  stamp=$(sha256sum "$requirements")
  venv=$cache/infra-${stamp:0:12}
  mkdir -p "$cache"
  exec {lock}>"$cache/infra.lock"
  flock "$lock"
  if [ ! -e "$venv/.complete" ]; then
    note "installing Terraform, Helm and hadolint into $venv (half a minute)"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "no Python with venv and ensurepip: on Debian, apt-get install python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps --requirement "$requirements"
    touch "$venv/.complete"
  fi
  exec {lock}>&-
}

# The units as they would lie on a machine, in folder $1, with a program that does nothing.
lay_out_units() {
  mkdir -p "$1/usr/bin" "$1/usr/lib/systemd" "$1/etc/systemd"
  cp -r /usr/lib/systemd/system "$1/usr/lib/systemd/system"
  cp -r "$infra/systemd" "$1/etc/systemd/system"
  printf '#!/bin/sh\n' >"$1/usr/bin/haulout"
  chmod 755 "$1/usr/bin/haulout"
  install -D -m 755 "$1/usr/bin/haulout" "$1/bin/kill"
}

# Whether systemd takes the units of root $1 without a word; what it says goes to stdout.
verify_units() {
  local said units
  mapfile -t units < <(cd "$infra/systemd" && ls -d -- *.service *.timer)
  said=$(systemd-analyze verify --man=no --root="$1" "${units[@]}" 2>&1) || { printf '%s\n' "$said"; return 1; }
  # Keys that it does not know are named, and no error.
  said=$(grep -F haulout <<<"$said") || return 0
  printf '%s\n' "$said"
  return 1
}

check_units() {
  local root unit said count=0
  root=$(mktemp -d)
  # shellcheck disable=SC2064 # the path of now is meant
  trap "rm -rf '$root'" EXIT
  lay_out_units "$root"
  verify_units "$root" || die "systemd does not take the units"
  install -D -m 644 "$infra/systemd/etc/sealed.conf" "$root/etc/systemd/system/haulout-.service.d/sealed.conf"
  verify_units "$root" || die "systemd does not take the units of a sealed repository"
  for unit in "$infra"/systemd/*.service; do
    unit=$(basename "$unit")
    said=$(systemd-analyze security --offline=true --root="$root" --threshold="$exposure_max" "$unit" 2>&1) ||
      { printf '%s\n' "$said" && die "$unit is more exposed than $exposure_max"; }
    count=$((count + 1))
    note "$(grep -F 'Overall exposure' <<<"$said" | sed 's/^[^A-Z]*//; s/ [^ ]*$//')"
  done
  # That these checks can fail.
  sed -i 's/^ProtectSystem=/ProtectSytem=/' "$root/etc/systemd/system/haulout-.service.d/hardening.conf"
  ! verify_units "$root" >/dev/null || die "systemd-analyze verify does not tell an unknown key"
  rm "$root/etc/systemd/system/haulout-.service.d/hardening.conf"
  ! systemd-analyze security --offline=true --root="$root" --threshold="$exposure_max" haulout-check.service \
    >/dev/null 2>&1 || die "systemd-analyze security does not tell a unit without hardening"
  rm -rf "$root"
  trap - EXIT
  note "$(systemd-analyze --version | head -n 1): $count services and their timers verified"
}

# What the Dockerfile copies must hold every target that Cargo.toml names, or cargo refuses to build there.
check_context() {
  local context
  context=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$context'" EXIT
  (cd "$top" && git ls-files --cached --others --exclude-standard |
    "$infra/check/context.py" infra/Dockerfile.dockerignore | tar -c -T - | tar -x -C "$context")
  (cd "$context" && cargo metadata --no-deps --offline --locked --format-version 1 >/dev/null) ||
    die "the Docker context lacks what cargo needs"
  note "the Docker context has $(find "$context" -type f | wc -l) files, and all that Cargo.toml names"
  rm -rf "$context"
  trap - EXIT
}

find_cargo
if make_venv; then
  heading "Terraform"
  "$venv/bin/python" "$infra/check/terraform.py"
  heading "Helm and Kubernetes"
  "$venv/bin/python" "$infra/check/helm.py"
  heading "Dockerfile"
  "$venv/bin/hadolint" "$infra/Dockerfile"
  ! printf 'FROM debian\nRUN cd /tmp && sudo ls\n' | "$venv/bin/hadolint" - >/dev/null || die "hadolint finds nothing"
  note "$("$venv/bin/hadolint" --version)"
else
  note "NOT CHECKED: Terraform, the Helm chart, the Dockerfile: their programs come as packages for x86_64 Linux alone"
fi
check_context
heading "systemd"
if command -v systemd-analyze >/dev/null; then
  check_units
else
  note "NOT CHECKED: the units: this machine has no systemd-analyze"
fi

heading "Prometheus"
if command -v promtool >/dev/null; then
  (cd "$infra/prometheus" && promtool check rules alerts.yaml && promtool test rules alerts_test.yaml)
  # That these tests can fail.
  broken=$(mktemp -d)
  cp "$infra"/prometheus/*.yaml "$broken"
  sed -i 's/^\( *expr: \)haulout_archive_following == 0/\1haulout_archive_following == 2/' "$broken/alerts.yaml"
  ! (cd "$broken" && promtool test rules alerts_test.yaml) >/dev/null 2>&1 || die "promtool does not tell an alert that never comes"
  rm -rf "$broken"
else
  note "NOT CHECKED: the alert rules: this machine has no promtool (Debian's package prometheus)"
fi

heading "what no program here can tell"
note "NOT CHECKED: what AWS says to the plan and the policies: there is no AWS here; the provider's schema is known, its answers are not"
note "NOT CHECKED: the chart in a cluster: there is none here"
note "NOT CHECKED: the units under a running systemd; their commands run, confined alike, in the end-to-end tests"
note "NOT CHECKED: the image, for lack of Docker; infra/check/image.sh makes its last stage without"
