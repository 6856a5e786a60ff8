#!/usr/bin/env bash
# Puts the jars that let Spark read Delta tables into the cache: <cache>/boathouse/delta-spark/<version>/lib. Needs
# Java 17+ and Maven. Prints that folder. Does nothing when it is there; an interrupted run leaves nothing half-done.
#   tools/delta-spark.sh          set up
#   tools/delta-spark.sh --check  exit 0 when this machine can run Spark, else say what is missing, exit 1
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/maven.sh"
version=$(cat "$here/delta-spark/version")
target="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/delta-spark/$version"

missing() {
    echo "delta-spark: $1" >&2
    exit 1
}

java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
command -v "$java" >/dev/null || missing "no java found. Install Java 17 or newer (Debian, Ubuntu: apt install openjdk-17-jre-headless)."
feature=$("$java" -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.specification\.version = //p')
case "$feature" in
    '' | *[!0-9]*) feature=0 ;;
esac
[ "$feature" -ge 17 ] || missing "'$java' is too old for Spark, which needs Java 17 or newer."
if [ ! -e "$target/lib" ]; then
    command -v mvn >/dev/null || missing "no mvn found, which fetches Delta's jars for Spark. Install Maven (Debian, Ubuntu: apt install maven)."
fi
[ "${1:-}" != --check ] || exit 0

if [ ! -e "$target/lib" ]; then
    echo "delta-spark: fetching Delta $version for Spark (13 MB) into $target" >&2
    fetch_jars "$target" "$here/delta-spark/pom.xml" "-Ddelta.version=$version" -DincludeGroupIds=io.delta,io.unitycatalog ||
        missing "Maven could not fetch the jars (its message is above). Run tools/delta-spark.sh again."
fi
echo "$target/lib"
