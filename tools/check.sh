#!/usr/bin/env bash
# Names every tool that is missing and how to get it; exits 1 if one is.
#   tools/check.sh       what building and the demo need
#   tools/check.sh dev   and the lints
#   tools/check.sh test  and the tests
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

if [ "${1:-}" = test ]; then
  need node "runs the tests' JavaScript clients and drives the console's pages" "Debian, Ubuntu: apt-get install nodejs npm; or https://nodejs.org"
  need curl "asks the engine and the console as people do" "Debian, Ubuntu: apt-get install curl; Fedora: dnf install curl"
  need openssl "makes the tests' certificates" "Debian, Ubuntu: apt-get install openssl; Fedora: dnf install openssl"
  python=${PYTHON:-python3}
  need "$python" "reads the tables with independent readers" "Debian, Ubuntu: apt-get install python3-venv; Fedora: dnf install python3"
  if command -v node >/dev/null 2>&1 && ! node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)'; then
    printf 'too old: node %s, needed is 20\n         get it: https://nodejs.org\n' "$(node --version)" >&2
    missing=1
  fi
  if command -v "$python" >/dev/null 2>&1; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
      printf 'too old: %s, needed is Python 3.10\n         get it: a newer one, named by PYTHON=/path/to/python3\n' "$("$python" --version)" >&2
      missing=1
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
      printf 'missing: venv   of %s: the tests make environments of their own\n         get it: Debian, Ubuntu: apt-get install python3-venv\n' "$python" >&2
      missing=1
    fi
  fi
fi

if command -v rustc >/dev/null 2>&1; then
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  have=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n1)" != "$wanted" ]; then
    printf 'too old: rustc %s, needed is %s\n         get it: rustup update stable\n' "$have" "$wanted" >&2
    missing=1
  fi
  for component in fmt clippy; do
    if [ -n "${1:-}" ] && ! cargo "$component" --version >/dev/null 2>&1; then
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
