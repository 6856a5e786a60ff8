#!/usr/bin/env bash
# Kafka over TLS with SCRAM, end to end: an Apache Kafka broker that takes clients only so, the producer, the daemon, and
# reconcile. The programs are built with the feature kafka-tls first: OpenSSL and librdkafka with it, some minutes, once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
events=20000

"$here/kafka.sh"
"$here/chdb.sh"
cargo build --locked --release --features kafka-tls --bins

work=$(mktemp -d)
children=()
finish() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
fail() {
    echo "kafka-tls: $1" >&2
    for log in "$work"/*.log; do echo "--- $log" >&2 && tail -n 20 "$log" >&2; done
    exit 1
}
# Away from where a build without the feature puts its own.
for program in boathouse boathouse-producer boathouse-clickhouse; do
    cp "${CARGO_TARGET_DIR:-target}/release/$program" "$work/"
done
read -r kafka internal controller clickhouse metrics < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(5)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=broker \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$work/key.pem" -out "$work/ca.pem" 2>"$work/openssl.log"
cat "$work/key.pem" "$work/ca.pem" >"$work/broker.pem"
cat >"$work/server.properties" <<EOF
process.roles=broker,controller
node.id=1
listeners=CLIENTS://127.0.0.1:$kafka,INTERNAL://127.0.0.1:$internal,CONTROLLER://127.0.0.1:$controller
advertised.listeners=CLIENTS://127.0.0.1:$kafka,INTERNAL://127.0.0.1:$internal
listener.security.protocol.map=CLIENTS:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$work/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.clients.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$work/broker.pem
EOF
jars="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/kafka/$(cat "$here/kafka/version")/lib/*"
java=("${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx256m -XX:+UseSerialGC -cp "$jars")
"${java[@]}" kafka.tools.StorageTool format -t "$(python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("="))')" \
    -c "$work/server.properties" --add-scram 'SCRAM-SHA-256=[name=boathouse,password=swordfish]' >"$work/format.log" 2>&1 ||
    fail "the broker's storage could not be formatted"
"${java[@]}" kafka.Kafka "$work/server.properties" >"$work/kafka.log" 2>&1 &
children+=($!)
"$work/boathouse-clickhouse" --path "$work/clickhouse" --listen "127.0.0.1:$clickhouse" >"$work/clickhouse.log" 2>&1 &
children+=($!)

settings=(security.protocol=sasl_ssl "ssl.ca.location=$work/ca.pem" sasl.mechanism=SCRAM-SHA-256 sasl.username=boathouse)
options=()
for setting in "${settings[@]}" sasl.password=swordfish; do options+=(-X "$setting"); done
"$work/boathouse-producer" --brokers "127.0.0.1:$kafka" --count "$events" --max-rate --seed 1 "${options[@]}" \
    >"$work/producer.log" 2>&1 || fail "the producer could not send"
echo "kafka-tls: $events events sent over TLS with SCRAM"

# Properties have dots in their names: they stand in the configuration.
configuration() {
    mkdir -p "$work/$1/pipelines"
    cp -r config/pipelines/user_events "$work/$1/pipelines/"
    {
        echo "data_dir = \"$work/$1/data\""
        echo "[lakehouse]"
        echo "uri = \"$work/lakehouse\""
        echo "[clickhouse]"
        echo "url = \"http://127.0.0.1:$clickhouse\""
        echo "[metrics]"
        echo "listen = \"127.0.0.1:$metrics\""
        echo "[console]"
        echo "listen = \"\""
        echo "[kafka]"
        echo "brokers = \"127.0.0.1:$kafka\""
        echo "[kafka.properties]"
        for setting in "${settings[@]}" "sasl.password=$2"; do echo "\"${setting%%=*}\" = \"${setting#*=}\""; done
    } >"$work/$1/boathouse.toml"
}
configuration right swordfish
configuration wrong herring
if "$work/boathouse" --config "$work/wrong/boathouse.toml" topic list >"$work/wrong.log" 2>&1; then
    fail "a wrong password was taken"
fi
echo "kafka-tls: a wrong password is refused: $(tail -n 1 "$work/wrong.log")"

boathouse=("$work/boathouse" --config "$work/right/boathouse.toml")
export BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__FLUSH_INTERVAL=1s
"${boathouse[@]}" run >"$work/daemon.log" 2>&1 &
daemon=$!
children+=("$daemon")
for _ in $(seq 120); do
    rows=$("${boathouse[@]}" sql --format csv 'select count(*) as n from bronze.user_events' 2>/dev/null | tail -n 1 || true)
    [ "$rows" != "$events" ] || break
    sleep 0.5
done
[ "${rows:-}" = "$events" ] || fail "Bronze holds ${rows:-none} of $events events"
kill "$daemon" && wait "$daemon" || fail "the daemon did not end in order"
"${boathouse[@]}" reconcile || fail "reconcile found differences"
echo "kafka-tls: all $events events are in Bronze and counted"
