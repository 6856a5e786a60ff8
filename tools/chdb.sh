#!/usr/bin/env bash
# Fetches ClickHouse's engine (libchdb.so) into the user's cache folder, once. Prints the library's path.
set -euo pipefail

version=26.7.3-stable.1
package=@chdb/lib-linux-x64-gnu
folder="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/chdb/$version"
library="$folder/libchdb.so"

if [[ -s $library ]]; then
    echo "$library"
    exit 0
fi
if [[ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]]; then
    echo "tools/chdb.sh: the embedded engine is packaged for Linux on x86-64 only; use a ClickHouse server instead (clickhouse.url)" >&2
    exit 1
fi
if ! command -v npm > /dev/null; then
    echo "tools/chdb.sh: npm is missing; it fetches the ClickHouse engine. Install it (Debian, Ubuntu: apt install npm)" >&2
    exit 1
fi

mkdir -p "$folder"
# Beside the target, so that the last step is a rename: nobody ever sees half a library.
work="$(mktemp -d "$folder/fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT
echo "tools/chdb.sh: fetching $package@$version (about 180 MB)" >&2
if ! (cd "$work" && npm pack --silent "$package@$version" > packed.log 2>&1); then
    cat "$work/packed.log" >&2
    echo "tools/chdb.sh: npm could not fetch $package@$version; is its registry reachable?" >&2
    exit 1
fi
tar -xzf "$work"/*.tgz -C "$work" package/libchdb.so
mv "$work/package/libchdb.so" "$library"
echo "$library"
