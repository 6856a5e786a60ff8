#!/usr/bin/env bash
# Fetches Prometheus and promtool from Debian's packages into the user's cache folder, once, for the tests of the rules
# and dashboards. Nothing is installed and no root is needed. Prints the folder, which has usr/bin/prometheus in it.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/prometheus"

missing() {
    echo "tools/prometheus.sh: $1" >&2
    exit 1
}

# The newest that is there already.
for folder in $(ls -dr "$cache"/*/ 2> /dev/null); do
    if [[ -x $folder/usr/bin/prometheus && -x $folder/usr/bin/promtool ]]; then
        echo "${folder%/}"
        exit 0
    fi
done

for tool in apt-get apt-cache dpkg; do
    command -v "$tool" > /dev/null || missing "$tool is missing: Prometheus comes from Debian's packages (Debian, Ubuntu)"
done
candidate() { apt-cache "${options[@]}" policy prometheus | sed -n 's/^ *Candidate: //p'; }
mkdir -p "$cache"
options=()
version=$(candidate)
if [[ -z $version || $version == "(none)" ]]; then
    # The machine has no lists of packages yet: lists of our own, which need no root either.
    echo "tools/prometheus.sh: fetching the lists of packages" >&2
    mkdir -p "$cache/lists/partial" "$cache/archives/partial"
    options=(-o "Dir::State::Lists=$cache/lists" -o "Dir::Cache=$cache")
    apt-get "${options[@]}" update > /dev/null 2>&1 || missing "apt-get update failed; is its mirror reachable?"
    version=$(candidate)
fi
[[ -n $version && $version != "(none)" ]] || missing "apt knows no package prometheus"

# Beside the target, so that the last step is a rename: nobody ever sees half a program.
work="$(mktemp -d "$cache/fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
echo "tools/prometheus.sh: fetching prometheus $version (19 MB)" >&2
(cd "$work" && apt-get "${options[@]}" download prometheus > apt.log 2>&1) ||
    missing "apt could not fetch prometheus: $(tail -n 1 "$work/apt.log"); is its mirror reachable?"
dpkg -x "$work"/*.deb "$work/root"
chmod 755 "$work/root"
target="$cache/${version//[:~+]/-}"
# Another run may have been quicker: then its folder stays and ours goes.
mv -T "$work/root" "$target" 2> /dev/null || [[ -x $target/usr/bin/prometheus ]]
echo "$target"
