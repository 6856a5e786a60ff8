#!/usr/bin/env bash
# Sets up the Kafka broker of the demo and the tests: Apache Kafka where Java and Maven are, else tansu.
# BOATHOUSE_BROKER=kafka|tansu decides; with host:port there is nothing to set up.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case "${BOATHOUSE_BROKER:-auto}" in
    kafka) exec "$here/kafka.sh" ;;
    tansu) exec "$here/tansu.sh" ;;
    auto)
        if "$here/kafka.sh" --check 2>/dev/null; then
            exec "$here/kafka.sh"
        fi
        echo "broker: Java 17 with Maven is not here, so the broker is tansu" >&2
        exec "$here/tansu.sh"
        ;;
    *:*) ;;
    *)
        echo "BOATHOUSE_BROKER is '$BOATHOUSE_BROKER'; it must be kafka, tansu, or the host:port of a broker" >&2
        exit 1
        ;;
esac
