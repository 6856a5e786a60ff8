#!/usr/bin/env bash
# Builds tansu, the Kafka-compatible broker without Java, into the cache: <cache>/boathouse/tansu/<version>/bin.
# Takes about nine minutes on two cores, once; does nothing when it is there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(cat "$here/tansu.version")
target="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/tansu/$version"
[ ! -x "$target/bin/tansu" ] || exit 0
command -v cargo >/dev/null || {
    echo "tansu: no cargo found. Install Rust (https://rustup.rs)." >&2
    exit 1
}
echo "tansu: building tansu $version into $target; this takes about nine minutes" >&2
mkdir -p "$target"
# Its own build folder, kept until the build is through so that an interrupted one goes on where it stopped.
# RUSTFLAGS of the caller are not tansu's.
env -u RUSTFLAGS CARGO_TARGET_DIR="$target/build" \
    cargo install "tansu@$version" --no-default-features --features libsql,dynostore --root "$target"
rm -rf "$target/build"
