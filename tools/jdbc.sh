#!/usr/bin/env bash
# Puts ClickHouse's JDBC driver and what it needs into the user's cache folder, once for each version: for the test of
# DBeaver's and DataGrip's driver. Prints the folder. Needs Java 17+ and Maven.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/maven.sh"
version=$(cat "$here/jdbc/version")
target="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/jdbc/$version"

missing() {
    echo "tools/jdbc.sh: $1" >&2
    exit 1
}

if [ ! -e "$target/lib" ]; then
    command -v mvn > /dev/null || missing "no mvn found, which fetches the driver (Debian, Ubuntu: apt install maven)"
    echo "tools/jdbc.sh: fetching clickhouse-jdbc $version into $target" >&2
    fetch_jars "$target" "$here/jdbc/pom.xml" "-Djdbc.version=$version" ||
        missing "Maven could not fetch the driver (its message is above). Run tools/jdbc.sh again."
fi
echo "$target/lib"
