#!/usr/bin/env bash
# Licences, sources, duplicate and banned crates, known vulnerabilities, by cargo-deny; deny.toml says what is allowed.
set -euo pipefail

version=0.20.2
root=${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/cargo-deny-$version
if [ ! -x "$root/bin/cargo-deny" ]; then
  echo "installing cargo-deny $version into $root (some minutes, once)"
  CARGO_TARGET_DIR="$root/target" cargo install cargo-deny --locked --quiet --version "$version" --root "$root"
  rm -rf "$root/target"
fi

"$root/bin/cargo-deny" --locked check --hide-inclusion-graph licenses bans sources

# The advisory database is a git repository; where it cannot be had, that is said, and it is not a pass.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if "$root/bin/cargo-deny" --locked fetch db >"$log" 2>&1; then
  "$root/bin/cargo-deny" --locked check --hide-inclusion-graph advisories
else
  tail -n 3 "$log" >&2
  echo "NOT CHECKED: known vulnerabilities (the advisory database could not be fetched). Licences, bans and sources are fine."
fi
