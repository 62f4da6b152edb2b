# shellcheck shell=bash
# Sourced after lib.sh by the scripts that want a program of another Debian release.
#
# The packages are only unpacked: nothing of theirs is run to set them up, so there is no chroot, no mount and no service
# that could be left behind. Their programs need a newer or older C library than this machine's, so they are made to use
# the unpacked loader and libraries. Wrappers tell them where their files are.

# Has MariaDB $1 of Debian release $2 unpacked, and prints the folder of its programs.
unpacked_mariadb() {
  local version=$1 release=$2
  local folder=${cache:?lib.sh comes first}/mariadb-$version lock state
  mkdir -p "$cache"
  exec {lock}>"$cache/install.lock"
  flock "$lock"
  if [ ! -e "$folder/.complete" ] || [ ! -e "$folder/root/usr/lib/mysql/plugin/ha_rocksdb.so" ]; then
    {
      heading "unpacking MariaDB $version of Debian $release into $folder"
      need_packages debootstrap patchelf
      rm -rf "$folder"
      mkdir -p "$folder/root"
      unpack_release "$folder" "$release" mariadb-server,mariadb-backup,mariadb-plugin-rocksdb
    } >&2
  fi
  # So a folder that was moved, or unpacked by an older script, is right again; one that is in use stays as it is.
  state="$folder $(cksum <"${BASH_SOURCE[0]}")"
  if [ "$(cat "$folder/.complete" 2>/dev/null)" != "$state" ]; then
    wrap_programs "$folder"
    printf '%s\n' "$state" >"$folder/.complete"
  fi
  exec {lock}>&-
  [[ $("$folder/bin/mariadbd" --version) == *" $version."* ]] || die "$folder does not hold MariaDB $version"
  printf '%s\n' "$folder/bin"
}

# Installs what is missing of these Debian packages, each of which is called as its program.
need_packages() {
  local package missing=()
  [ "$(id -u)" = 0 ] || die "debootstrap wants to be run by root: run this once as root, with the same HAULOUT_CACHE"
  for package; do
    command -v "$package" >/dev/null || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; only Debian's packages can be installed from here"
  DEBIAN_FRONTEND=noninteractive apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
}

# Unpacks the packages $3, separated by commas, and all that they need, of release $2, into $1/root.
unpack_release() {
  local folder=$1 release=$2 packages=$3 package
  run debootstrap --download-only --variant=minbase --include="$packages" "$release" \
    "$folder/packages" >"$folder/debootstrap.log" 2>&1 ||
    { tail -n 20 "$folder/debootstrap.log" && die "debootstrap failed: see $folder/debootstrap.log"; }
  for package in "$folder"/packages/var/cache/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$folder/root"
  done
  rm -rf "$folder/packages"
}

# Sets `libraries` to the library path of the packages in $1, and `loader` to their loader.
find_loader() {
  local root=$1 path program
  libraries='' loader=''
  for path in "$root"/lib/*-linux-gnu* "$root"/usr/lib/*-linux-gnu*; do
    libraries+=${libraries:+:}$path
    # The name in lib64 can be a link to a place of this machine: only the file itself will do.
    for program in "$path"/ld-linux-*.so.* "$path"/ld-*.so; do
      [ -n "$loader" ] || [ ! -f "$program" ] || loader=$program
    done
  done
}

# Makes $1/bin, one wrapper for each program, and $1/base, which looks like a MariaDB installation to mariadb-install-db.
wrap_programs() {
  local folder=$1 root=$1/root share path program
  rm -rf "${folder:?}"/{bin,base}
  mkdir "$folder/bin" "$folder/base"
  ln -s ../bin "$folder/base/bin"
  ln -s ../bin "$folder/base/sbin"
  ln -s ../root/usr/lib "$folder/base/lib"
  ln -s ../root/usr/share "$folder/base/share"
  for path in "$root"/usr/share/mariadb "$root"/usr/share/mysql; do
    [ -e "$path/charsets/Index.xml" ] && share=$path && break
  done
  find_loader "$root"
  for path in "$root"/usr/sbin/mariadbd "$root"/usr/bin/{mariadb,mariadb-*,mbstream,my_print_defaults,resolveip,innochecksum}; do
    program=$(basename "$path")
    # Scripts would need wrappers of their own.
    [ "$(head -c 4 "$path" 2>/dev/null | tail -c 3)" = ELF ] || continue
    # The path of libraries holds for what those need themselves, too.
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$path"
    wrapper "$folder" "$program" "$path" "${share:?}" >"$folder/bin/$program"
  done
  # The name by which the mariadb-install-db of 10.5 looks for it.
  ln -s mariadbd "$folder/bin/mysqld"
  cat >"$folder/bin/mariadb-install-db" <<SCRIPT
#!/bin/bash
$(first_options)
exec /bin/sh $(printf %q "$root/usr/bin/mariadb-install-db") "\${first[@]}" --basedir=$(printf %q "$folder/base") "\$@"
SCRIPT
  chmod 755 "$folder"/bin/*
}

# Lines of a wrapper that take the options which must come first.
first_options() {
  cat <<'SCRIPT'
first=()
while case ${1-} in --no-defaults | --defaults-* | --print-defaults) true ;; *) false ;; esac do
  first+=("$1")
  shift
done
SCRIPT
}

# Prints the wrapper of program $2 at $3 in folder $1; a server's files lie in $4.
wrapper() {
  local folder=$1 program=$2 path=$3 share=$4 places=()
  if [ "$program" = mariadbd ]; then
    places=("--basedir=$folder/base" "--plugin-dir=$folder/root/usr/lib/mysql/plugin" "--lc-messages-dir=$share"
      "--character-sets-dir=$share/charsets")
  elif [ "$program" = mariadb-backup ]; then
    places=("--plugin-dir=$folder/root/usr/lib/mysql/plugin")
  fi
  cat <<SCRIPT
#!/bin/bash
$(first_options)
exec ${path@Q} "\${first[@]}" ${places[*]@Q} "\$@"
SCRIPT
}
