#!/usr/bin/env bash
# Builds tansu, the Kafka-compatible broker without Java, into the cache: <cache>/boathouse/tansu/<version>/bin.
# Takes about nine minutes on two cores, once; does nothing when it is there.
# Two of its crates are built with tools/tansu.patch, which says at its top what it changes and why. tansu.version names
# both, as in 0.6.0+PATCH, where PATCH is the start of the patch's SHA-256: another patch is another version.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(cat "$here/tansu.version")
release=${version%%+*}
patch=$(sha256sum "$here/tansu.patch" | cut -c1-8)
if [ "$version" != "$release+$patch" ]; then
    echo "tansu: tools/tansu.patch has changed; write $release+$patch into tools/tansu.version" >&2
    exit 1
fi
target="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/tansu/$version"
[ ! -x "$target/bin/tansu" ] || exit 0
for tool in cargo git; do
    command -v "$tool" >/dev/null || {
        echo "tansu: no $tool found. Install Rust (https://rustup.rs) and git." >&2
        exit 1
    }
done
echo "tansu: building tansu $version into $target; this takes about nine minutes" >&2
mkdir -p "$target"
source="$target/source"
if [ ! -d "$source" ]; then
    unpatched="$target/unpatched"
    rm -rf "$unpatched"
    mkdir "$unpatched"
    for crate in tansu tansu-broker tansu-storage; do
        # cargo fetches a crate, and holds it against the registry's checksum, to tell of it.
        (cd "$unpatched" && cargo info --quiet --registry crates-io "$crate@$release" >/dev/null)
        found=("${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate-$release")
        cp -R "${found[0]}" "$unpatched/$crate"
    done
    # Outside of any repository that the cache may lie in.
    (cd "$unpatched" && GIT_CEILING_DIRECTORIES="$target" git apply "$here/tansu.patch")
    mv "$unpatched" "$source"
fi
# Its own build folder, kept until the build is through so that an interrupted one goes on where it stopped.
# RUSTFLAGS of the caller are not tansu's. The lock is the one that tansu was published with.
(cd "$source/tansu" && env -u RUSTFLAGS CARGO_TARGET_DIR="$target/build" \
    cargo build --locked --release --no-default-features --features libsql,dynostore)
mkdir -p "$target/bin"
mv "$target/build/release/tansu" "$target/bin/tansu"
rm -rf "$target/build" "$source"
