#!/usr/bin/env bash
# Puts Apache Kafka's jars into the cache: <cache>/boathouse/kafka/<version>/lib. Needs Java 17+ and Maven.
# Does nothing when they are there; an interrupted run leaves nothing half-done behind.
#   tools/kafka.sh          set up
#   tools/kafka.sh --check  exit 0 when this machine can run Kafka or set it up, else say what is missing, exit 1
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/maven.sh"
version=$(cat "$here/kafka/version")
target="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/kafka/$version"

missing() {
    echo "kafka: $1" >&2
    exit 1
}

java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
command -v "$java" >/dev/null || missing "no java found. Install Java 17 or newer (Debian, Ubuntu: apt install openjdk-17-jre-headless), or set BOATHOUSE_BROKER=tansu for the broker without Java."
feature=$("$java" -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.specification\.version = //p')
case "$feature" in
    '' | *[!0-9]*) missing "'$java' is Java '${feature:-unknown}'; Apache Kafka $version needs 17 or newer. Install one, or set BOATHOUSE_BROKER=tansu." ;;
esac
[ "$feature" -ge 17 ] || missing "'$java' is Java $feature; Apache Kafka $version needs 17 or newer. Install one, or set BOATHOUSE_BROKER=tansu."

if [ ! -e "$target/lib" ]; then
    command -v mvn >/dev/null || missing "no mvn found, which fetches Kafka's jars. Install Maven (Debian, Ubuntu: apt install maven), or set BOATHOUSE_BROKER=tansu."
fi
[ "${1:-}" != --check ] || exit 0
[ ! -e "$target/lib" ] || exit 0

echo "kafka: fetching Apache Kafka $version (43 MB) into $target" >&2
fetch_jars "$target" "$here/kafka/pom.xml" "-Dkafka.version=$version" ||
    missing "Maven could not fetch the jars (its message is above). Run tools/kafka.sh again, or set BOATHOUSE_BROKER=tansu."
