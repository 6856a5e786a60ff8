#!/usr/bin/env bash
# Fetches MariaDB's server from Debian's packages into the user's cache folder, once, for the tests of the run history.
# Nothing is installed and no root is needed. Prints the folder, which has usr/sbin/mariadbd in it.
set -euo pipefail

packages=(mariadb-server-core libaio1 liburing2 libnuma1)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/mariadb"

missing() {
    echo "tools/mariadb.sh: $1" >&2
    exit 1
}

# The newest that is there already.
for folder in $(ls -dr "$cache"/*/ 2> /dev/null); do
    if [[ -x $folder/usr/sbin/mariadbd ]]; then
        echo "${folder%/}"
        exit 0
    fi
done

for tool in apt-get apt-cache dpkg; do
    command -v "$tool" > /dev/null || missing "$tool is missing: the server comes from Debian's packages (Debian, Ubuntu)"
done
version=$(apt-cache policy mariadb-server-core | sed -n 's/^ *Candidate: //p')
[[ -n $version && $version != "(none)" ]] || missing "apt knows no package mariadb-server-core; run apt-get update"

mkdir -p "$cache"
# Beside the target, so that the last step is a rename: nobody ever sees half a server.
work="$(mktemp -d "$cache/fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
echo "tools/mariadb.sh: fetching mariadb-server-core $version (8 MB)" >&2
for package in "${packages[@]}"; do
    # Newer releases name some libraries otherwise, and some have them installed.
    (cd "$work" && apt-get download "$package" > apt.log 2>&1) ||
        [[ $package != mariadb-server-core ]] ||
        missing "apt could not fetch $package: $(tail -n 1 "$work/apt.log"); is its mirror reachable?"
done
for file in "$work"/*.deb; do
    dpkg -x "$file" "$work/root"
done
chmod 755 "$work/root"
target="$cache/${version//[:~]/-}"
# Another run may have been quicker: then its folder stays and ours goes.
mv -T "$work/root" "$target" 2> /dev/null || [[ -x $target/usr/sbin/mariadbd ]]
echo "$target"
