//! Every record of the corpus, end to end: a real client, a real broker, the real daemon among normal traffic, and then
//! exact checks from outside. Nothing blocks, nothing is lost, every verdict is the one written down.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use boathouse::config::Pipeline;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::corpus::{Case, EVENT, Expected, KAFKA_TIME, cases};
use super::reference::{self, Cell};
use super::support::broker::{Kafka, broker};
use super::support::daemon::Site;
use super::support::engine::Engine;

type Bytes = Option<Vec<u8>>;
type Headers = Vec<(String, Bytes)>;

/// A record as it was sent, and what must become of it.
struct Sent {
    name: &'static str,
    key: Bytes,
    value: Bytes,
    headers: Headers,
    /// Milliseconds since the epoch; -1 for none.
    kafka_time: i64,
    expected: Expected,
    status: &'static str,
}

fn kafka_time() -> i64 {
    chrono::DateTime::parse_from_rfc3339(KAFKA_TIME).unwrap().timestamp_millis()
}

/// The corpus with a good event behind each case, keys and headers of every kind by turns.
fn records() -> Vec<Sent> {
    let bytes = |text: &[u8]| Some(text.to_vec());
    let keys = [None, bytes(b""), bytes(b"42"), bytes(b"\x00\xff\xfe"), bytes(&[b'k'; 5000])];
    let header = |key: &str, value: Bytes| (key.to_owned(), value);
    let headers: [Headers; 6] = [
        vec![],
        vec![header("trace", bytes(b"abc"))],
        vec![header("none", None), header("empty", bytes(b""))],
        vec![header("same", bytes(b"1")), header("same", bytes(b"2")), header("same", None)],
        vec![header("", bytes(b"\x00\xff")), header("größe/😀", bytes(b"\xc3\x28"))],
        (0..200).map(|i| header(&format!("h{i}"), bytes(&[i as u8; 20]))).collect(),
    ];
    let mut sent = Vec::new();
    for (n, Case { name, value, expected, status }) in cases().into_iter().enumerate() {
        let (key, headers) = (keys[n % keys.len()].clone(), headers[n % headers.len()].clone());
        sent.push(Sent { name, key, value, headers, kafka_time: kafka_time(), expected, status });
        let kind = ["login", "click", "purchase", "logout"][n % 4];
        let good = EVENT.replace("click", kind).replace("14:30:00", &format!("14:30:{:02}", n % 30));
        sent.push(Sent {
            name: "normal traffic",
            key: bytes(b"7"),
            value: Some(good.into_bytes()),
            headers: vec![],
            kafka_time: kafka_time(),
            expected: Expected::Event,
            status: "ok",
        });
    }
    sent
}

/// A producer that takes records of megabytes and leaves them as they are.
fn producer(kafka: &Kafka, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = kafka.client();
    config.set("message.max.bytes", "4000000").set("enable.idempotence", "true").set("linger.ms", "20");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// Sends records in order; their offsets.
async fn send(producer: &FutureProducer, topic: &str, partition: i32, records: &[Sent]) -> Vec<i64> {
    let mut deliveries = Vec::new();
    for record in records {
        let mut message: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = Some(record.kafka_time);
        if !record.headers.is_empty() {
            let add =
                |all: OwnedHeaders, (key, value): &(String, Bytes)| all.insert(Header { key, value: value.as_deref() });
            message.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), add));
        }
        deliveries.push(producer.send_result(message).map_err(|(error, _)| error).unwrap());
    }
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(delivery.await.unwrap().unwrap_or_else(|(error, _)| panic!("not delivered: {error}")).offset);
    }
    offsets
}

/// As [`send`], in transactions of ten; before each, the same ten in one that is aborted. The offsets of those kept.
async fn send_in_transactions(kafka: &Kafka, topic: &str, partition: i32, records: &[Sent]) -> Vec<i64> {
    const LIMIT: Duration = Duration::from_secs(120);
    if kafka.lacks("the corpus in transactions, which is sent without them") {
        return send(&producer(kafka, &[("compression.type", "gzip")]), topic, partition, records).await;
    }
    let id = kafka.unique_name("poison");
    let producer = producer(kafka, &[("transactional.id", &id), ("compression.type", "gzip")]);
    producer.init_transactions(LIMIT).unwrap();
    let mut offsets = Vec::new();
    for ten in records.chunks(10) {
        producer.begin_transaction().unwrap();
        send(&producer, topic, partition, ten).await;
        producer.abort_transaction(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        offsets.extend(send(&producer, topic, partition, ten).await);
        producer.commit_transaction(LIMIT).unwrap();
    }
    offsets
}

/// A row of Bronze.
#[derive(Debug)]
struct Row {
    key: Bytes,
    headers: Headers,
    /// Milliseconds since the epoch; -1 for none.
    kafka_time: i64,
    cells: Vec<Cell>,
    status: String,
    error: Option<String>,
    payload: Bytes,
}

/// Every row of the Bronze table by (partition, offset), with how often it is there.
async fn bronze(site: &Site, pipeline: &Pipeline) -> BTreeMap<(i32, i64), Vec<Row>> {
    let folder = site.lakehouse().join("bronze/user_events");
    let url = deltalake::ensure_table_uri(folder.to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    let mut rows: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    for file in table.snapshot().unwrap().log_data().iter() {
        let file = std::fs::File::open(folder.join(file.path().as_ref())).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let partition = batch["partition"].as_primitive::<Int32Type>().value(row);
                let offset = batch["offset"].as_primitive::<Int64Type>().value(row);
                rows.entry((partition, offset)).or_default().push(read(pipeline, &batch, row));
            }
        }
    }
    rows
}

fn read(pipeline: &Pipeline, batch: &RecordBatch, row: usize) -> Row {
    let binary = |array: &dyn Array, row: usize| {
        let array = array.as_binary::<i32>();
        array.is_valid(row).then(|| array.value(row).to_vec())
    };
    let text = |name: &str| {
        let array = batch[name].as_string::<i32>();
        array.is_valid(row).then(|| array.value(row).to_owned())
    };
    let micros = |name: &str| {
        let array = batch[name].as_primitive::<TimestampMicrosecondType>();
        array.is_valid(row).then(|| array.value(row))
    };
    let headers = batch["headers"].as_list::<i32>();
    let headers = if headers.is_valid(row) {
        let elements = headers.value(row);
        let elements = elements.as_struct();
        let keys = elements["key"].as_string::<i32>().clone();
        (0..elements.len()).map(|i| (keys.value(i).to_owned(), binary(&elements["value"], i))).collect()
    } else {
        Headers::new()
    };
    let cell = |name: &str| match name {
        "timestamp" => micros("event_time").map_or(Cell::Null, Cell::Time),
        "user_id" => {
            let array = batch[name].as_primitive::<Int64Type>();
            if array.is_valid(row) { Cell::Int(array.value(row)) } else { Cell::Null }
        }
        name => text(name).map_or(Cell::Null, Cell::Text),
    };
    Row {
        key: binary(&batch["key"], row),
        headers,
        kafka_time: micros("kafka_timestamp").map_or(-1, |t| t / 1000),
        cells: pipeline.fields.iter().map(|f| cell(&f.name)).collect(),
        status: text("time_status").unwrap(),
        error: text("parse_error"),
        payload: binary(&batch["payload"], row),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poison_corpus_lands_whole_with_exact_verdicts() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("poison");
    let configs = [
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "4000000"),
        // The events' clock stands still in February.
        ("retention.ms", "-1"),
    ];
    kafka.create_topic(&topic, 3, &configs).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let text = std::fs::read_to_string(site.pipeline_file()).unwrap() + "\n[retention]\nrealtime = \"forever\"\n";
    std::fs::write(site.pipeline_file(), &text).unwrap();
    let pipeline: Pipeline = toml_edit::de::from_str(&text).unwrap();

    let mut daemon = site.start();
    daemon.wait("the partitions to be read", |s| s["partitions"].as_array().is_some_and(|all| all.len() == 3)).await;
    // Partition 0: as it is; 1: compressed in every way; 2: in transactions, half of them aborted.
    let mut all: BTreeMap<(i32, i64), Sent> = BTreeMap::new();
    let mut keep = |partition: i32, offsets: Vec<i64>, records: Vec<Sent>| {
        assert_eq!(offsets.len(), records.len());
        all.extend(offsets.into_iter().map(|offset| (partition, offset)).zip(records));
    };
    let plain = records();
    let offsets = send(&producer(kafka, &[]), &topic, 0, &plain).await;
    keep(0, offsets, plain);
    let mut compressed = records();
    let part = compressed.len().div_ceil(4);
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let rest = compressed.split_off(part.min(compressed.len()));
        let left_out = codec == "snappy" && kafka.lacks("records compressed by snappy, which are sent by gzip");
        let codec = if left_out { "gzip" } else { codec };
        let producer = producer(kafka, &[("compression.type", codec), ("linger.ms", "200")]);
        let offsets = send(&producer, &topic, 1, &compressed).await;
        keep(1, offsets, std::mem::replace(&mut compressed, rest));
    }
    let in_transactions = records();
    let offsets = send_in_transactions(kafka, &topic, 2, &in_transactions).await;
    keep(2, offsets, in_transactions);
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;

    // Every record once, and as it was sent.
    let rows = bronze(&site, &pipeline).await;
    assert_eq!(rows.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    let mut windows: BTreeMap<(i64, String), u64> = BTreeMap::new();
    let mut verdicts: BTreeMap<(i32, &str), u64> = BTreeMap::new();
    for (place, sent) in &all {
        let [row] = &rows[place][..] else { panic!("{} at {place:?} is there {} times", sent.name, rows[place].len()) };
        let at = || format!("{} at {place:?}", sent.name);
        assert_eq!((row.status.as_str(), row.kafka_time), (sent.status, sent.kafka_time), "{}", at());
        assert!(row.key == sent.key && row.headers == sent.headers, "key or headers of {}: {row:?}", at());
        *verdicts.entry((place.0, sent.status)).or_default() += 1;
        if let Expected::Unparsed(error) = sent.expected {
            assert_eq!(row.error.as_deref(), Some(error), "{}", at());
            assert!(row.cells.iter().all(|c| *c == Cell::Null) && row.payload == sent.value, "{}", at());
            continue;
        }
        assert_eq!(row.error, None, "{}", at());
        let kept = (sent.expected == Expected::EventKept).then(|| sent.value.clone()).flatten();
        assert!(row.payload == kept, "payload of {}", at());
        let event = reference::event(&pipeline, sent.value.as_deref().unwrap()).unwrap();
        assert!(row.cells == event.cells, "columns of {}: {:?}", at(), row.cells);
        if sent.status == "ok" {
            let Cell::Text(kind) = &event.cells[2] else { panic!("{}", at()) };
            let window = event.event_time.div_euclid(60_000_000) * 60;
            *windows.entry((window, kind.clone())).or_default() += 1;
        }
    }

    // The counts, as SQL, the metrics, the status and the windows give them.
    let by_sql = "select \"partition\", time_status, count(*) as n from bronze.user_events group by 1, 2";
    let by_sql: BTreeMap<(i32, String), u64> = json_lines(&site, &["sql", "--json", by_sql])
        .iter()
        .map(|r| ((r["partition"].as_i64().unwrap() as i32, text_of(&r["time_status"])), r["n"].as_u64().unwrap()))
        .collect();
    let wanted: BTreeMap<(i32, String), u64> = verdicts.iter().map(|((p, v), n)| ((*p, v.to_string()), *n)).collect();
    assert_eq!(by_sql, wanted);
    let metrics = http(&site, "metrics").await.1;
    for ((partition, verdict), n) in &wanted {
        let series = format!("partition=\"{partition}\",verdict=\"{verdict}\"}} {n}");
        let line = |l: &str| l.starts_with("boathouse_verdicts_total{") && l.ends_with(&series);
        assert!(metrics.lines().any(line), "no {series} in\n{metrics}");
    }
    let served = engine.sql(
        "SELECT toUnixTimestamp(window_start) AS w, event_type, event_count FROM realtime.events_per_minute FORMAT TSV",
    );
    let served: BTreeMap<(i64, String), u64> = served
        .lines()
        .map(|line| {
            let [window, kind, count] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            ((window.parse().unwrap(), kind.to_owned()), count.parse().unwrap())
        })
        .collect();
    assert_eq!(served, windows);

    // The dead letters are those, each with its reason.
    let letters = &json_lines(&site, &["dead-letters", "list", "--json", "--limit", "100000"])[0];
    let letters: HashMap<String, &serde_json::Value> =
        letters.as_array().unwrap().iter().map(|l| (text_of(&l["source"]), l)).collect();
    let mut dead = 0;
    for ((partition, offset), sent) in all.iter().filter(|(_, s)| ["unparsed", "future"].contains(&s.status)) {
        let letter = letters[&format!("{topic}/0/{partition}/{offset}")];
        let (status, reason) = (text_of(&letter["time_status"]), text_of(&letter["reason"]));
        assert_eq!(status, sent.status, "{}", sent.name);
        match sent.expected {
            Expected::Unparsed(error) => assert_eq!(reason, error, "{}", sent.name),
            _ => assert!(reason.contains("lies ahead of its Kafka timestamp"), "{}: {reason}", sent.name),
        }
        dead += 1;
    }
    assert_eq!(letters.len(), dead);
    let ((partition, offset), _) = all.iter().find(|(_, s)| s.name == "invalid UTF-8 in a value").unwrap();
    let shown = &json_lines(&site, &["dead-letters", "show", "--json", &format!("{topic}/0/{partition}/{offset}")])[0];
    assert_eq!(shown["parse_error"], "not UTF-8 at byte 95");

    // Nothing is blocked, nothing differs, nothing was logged as a fault; a start that reads all of it back agrees.
    let (code, ready) = http(&site, "readyz").await;
    assert_eq!(code, 200, "{ready}");
    site.assert_reconciled();
    daemon.stop().await;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

fn text_of(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The values that a command prints as JSON.
fn json_lines(site: &Site, arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = site.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    values.map(|value| value.unwrap_or_else(|e| panic!("{arguments:?}: {e}"))).collect()
}

async fn http(site: &Site, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://127.0.0.1:{}/{path}", site.metrics_port)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A record without a timestamp of Kafka's has no clock that it could be ahead of.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_kafka_timestamp_nothing_is_future() {
    let kafka = broker().await;
    if kafka.lacks("records without a timestamp") {
        return;
    }
    let engine = Engine::start();
    let topic = kafka.unique_name("timeless");
    kafka.create_topic(&topic, 1, &[("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")]).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let text = std::fs::read_to_string(site.pipeline_file()).unwrap() + "\n[retention]\nrealtime = \"forever\"\n";
    std::fs::write(site.pipeline_file(), text).unwrap();
    let at = |time: &str, kafka_time: i64, status| Sent {
        name: "timeless",
        key: None,
        value: Some(EVENT.replace("2026-02-06T14:30:00", time).into_bytes()),
        headers: vec![],
        kafka_time,
        expected: Expected::Event,
        status,
    };
    let records = [
        at("2026-02-06T14:30:00", kafka_time(), "ok"),
        at("2105-12-31T23:59:59", kafka_time(), "future"),
        at("2105-12-31T23:59:59", -1, "ok"),
        at("2026-02-06T14:30:00", -1, "late"),
    ];
    let offsets = send(&producer(kafka, &[]), &topic, 0, &records).await;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let pipeline: Pipeline = toml_edit::de::from_str(&std::fs::read_to_string(site.pipeline_file()).unwrap()).unwrap();
    let rows = bronze(&site, &pipeline).await;
    for (record, offset) in records.iter().zip(offsets) {
        let row = &rows[&(0, offset)][0];
        assert_eq!((row.status.as_str(), row.kafka_time), (record.status, record.kafka_time));
    }
    let years = engine.sql("SELECT toYear(window_start), event_count FROM realtime.events_per_minute ORDER BY 1");
    assert_eq!(years, "2026\t1\n2105\t1\n");
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
