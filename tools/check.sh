#!/usr/bin/env bash
# Names every tool that is missing and how to get it; exits 1 if one is.
set -euo pipefail

missing=0
need() { # need COMMAND WHAT-FOR HOW-TO-GET-IT
  if ! command -v "$1" >/dev/null 2>&1; then
    printf 'missing: %-6s %s\n         get it: %s\n' "$1" "$2" "$3" >&2
    missing=1
  fi
}

need cargo "builds everything" "https://rustup.rs, then: rustup default stable"
need cc "compiles librdkafka and zstd" "Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc make"
need make "compiles librdkafka" "Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc make"
need npm "fetches the ClickHouse engine (a library in an npm package)" "Debian, Ubuntu: apt-get install npm; or https://nodejs.org"

if command -v rustc >/dev/null 2>&1; then
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  have=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n1)" != "$wanted" ]; then
    printf 'too old: rustc %s, needed is %s\n         get it: rustup update stable\n' "$have" "$wanted" >&2
    missing=1
  fi
  for component in fmt clippy; do
    if [ "${1:-}" = dev ] && ! cargo "$component" --version >/dev/null 2>&1; then
      printf 'missing: cargo %s\n         get it: rustup component add %s\n' "$component" "${component/fmt/rustfmt}" >&2
      missing=1
    fi
  done
fi

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  printf 'note: the ClickHouse engine for the demo and the tests is a library for Linux on x86_64; this is %s\n' "$(uname -sm)" >&2
fi

# The target folder grows to 5 GiB, the engine and the broker take 1 GiB.
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
free_kib=$(df -Pk "$target" | awk 'NR == 2 { print $4 }')
if [ "$free_kib" -lt $((6 * 1024 * 1024)) ] && [ ! -d "$target/release" ]; then
  printf 'note: a first build takes about 6 GiB; %s has %d GiB free\n' "$target" $((free_kib / 1024 / 1024)) >&2
fi

exit "$missing"
