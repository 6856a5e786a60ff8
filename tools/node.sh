#!/usr/bin/env bash
# Installs the tests' npm packages into the user's cache folder, once for each content of tools/node. Prints the folder
# that has node_modules in it.
set -euo pipefail

here="$(dirname "$(readlink -f "$0")")/node"
for tool in node npm; do
    if ! command -v "$tool" > /dev/null; then
        echo "tools/node.sh: $tool is missing; install Node.js 20 or newer (Debian, Ubuntu: apt install nodejs npm)" >&2
        exit 1
    fi
done
key="$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-16)"
base="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/node"
target="$base/$key"
if [[ -d $target ]]; then
    echo "$target"
    exit 0
fi

mkdir -p "$base"
# Beside the target, so that the last step is a rename: nobody ever sees half of it.
work="$(mktemp -d "$base/fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
echo "tools/node.sh: installing the tests' npm packages (45 MB)" >&2
cp "$here/package.json" "$here/package-lock.json" "$work"
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent >&2) || {
    echo "tools/node.sh: npm could not install them (its message is above); is its registry reachable?" >&2
    exit 1
}
chmod 755 "$work"
# Another run may have been quicker: then its folder stays and ours goes.
mv -T "$work" "$target" 2> /dev/null || [[ -d $target ]]
echo "$target"
