//! A real Kafka broker for the tests: one shared by the whole test binary, or one of a test's own that it
//! may pause, kill and restart.
//!
//! The shared broker is started by the first test that asks for it and dies with the process. Tests stay apart
//! by topic names ([`Kafka::unique_name`]) and group names. There is no skipping: without a broker tests fail
//! and say what to install.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boathouse::servers::{Broker, BrokerChoice, BrokerKind};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientConfig, Message, Offset};
use tokio::sync::OnceCell;

use super::not_checked;

const LIMIT: Duration = Duration::from_secs(120);

/// The shared broker, started when first asked for.
pub async fn broker() -> &'static Kafka {
    static SHARED: OnceCell<(Kafka, std::sync::Mutex<Broker>)> = OnceCell::const_new();
    let (kafka, _) = SHARED
        .get_or_init(|| async {
            tokio::task::spawn_blocking(|| {
                let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
                remove_left_behind(root);
                let folder = root.join(format!("broker-{}", std::process::id()));
                let broker = start_broker(&folder);
                (Kafka::at(&broker), std::sync::Mutex::new(broker))
            })
            .await
            .unwrap()
        })
        .await;
    kafka
}

fn start_broker(folder: &Path) -> Broker {
    let choice = BrokerChoice::from_env().unwrap();
    Broker::start(&choice, folder, 0).unwrap_or_else(|error| panic!("{error}"))
}

/// A static is never dropped, so the shared broker's folder stays when the process ends: the next one takes
/// the folders of processes that are gone away.
fn remove_left_behind(root: &Path) {
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("broker-")
            && !PathBuf::from(format!("/proc/{pid}")).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A broker of a test's own. Dropping it stops it and removes its data.
pub struct OwnBroker {
    kafka: Kafka,
    broker: Broker,
    _folder: tempfile::TempDir,
}

impl OwnBroker {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        tokio::task::spawn_blocking(|| {
            let folder = tempfile::tempdir().unwrap();
            let broker = start_broker(folder.path());
            Self { kafka: Kafka::at(&broker), broker, _folder: folder }
        })
        .await
        .unwrap()
    }

    /// SIGKILL; [`Self::restart`] brings it back with its data.
    pub fn kill(&mut self) {
        self.broker.child().expect("the broker is ours").kill();
    }

    /// SIGSTOP: it holds its connections and answers nothing.
    pub fn pause(&mut self) {
        self.broker.child().expect("the broker is ours").signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.broker.child().expect("the broker is ours").signal(libc::SIGCONT);
    }

    /// Stops it in an orderly way; [`Self::restart`] brings it back.
    pub fn stop(&mut self) {
        self.broker.stop();
    }

    /// Starts it again on the same port and data, and waits until it answers. Blocks.
    pub fn restart(&mut self) {
        self.broker.restart().unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Deref for OwnBroker {
    type Target = Kafka;
    fn deref(&self) -> &Kafka {
        &self.kafka
    }
}

impl DerefMut for OwnBroker {
    fn deref_mut(&mut self) -> &mut Kafka {
        &mut self.kafka
    }
}

/// One record to produce. `Default` is an empty value without key, headers and timestamp.
#[derive(Default, Clone)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since 1970; `None` is now. A topic with LogAppendTime replaces it.
    pub timestamp_ms: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record with a value alone.
    pub fn of(value: &'a [u8]) -> Self {
        Self { value: Some(value), ..Self::default() }
    }
}

/// What tests do with a broker besides reading from it.
pub struct Kafka {
    address: String,
    kind: BrokerKind,
    producer: OnceLock<FutureProducer>,
}

impl Kafka {
    fn at(broker: &Broker) -> Self {
        Self { address: broker.address().to_owned(), kind: broker.kind(), producer: OnceLock::new() }
    }

    /// The bootstrap address, `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether this broker has no such thing. The test then ends; that it looked at nothing has been said.
    pub fn lacks(&self, what: &str) -> bool {
        let lacks = self.kind() == BrokerKind::Tansu;
        if lacks {
            not_checked(&format!("{what}: tansu has none"));
        }
        lacks
    }

    /// Apache Kafka, tansu, or one from outside.
    pub fn kind(&self) -> BrokerKind {
        self.kind
    }

    /// A client configuration that points at this broker.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// `prefix` made unique on this broker, for a topic or a group.
    pub fn unique_name(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn producer(&self) -> &FutureProducer {
        self.producer.get_or_init(|| {
            let mut config = self.client();
            // tansu counts a producer's records from nought again when a topic is made anew.
            let idempotence = if self.kind() == BrokerKind::Tansu { "false" } else { "true" };
            config.set("enable.idempotence", idempotence).set("linger.ms", "1").set("message.max.bytes", "4000000");
            config.create().unwrap()
        })
    }

    fn reader(&self) -> BaseConsumer {
        self.client().set("group.id", "tests").create().unwrap()
    }

    /// A new topic with a unique name that starts with `prefix`, as the producer makes it: LogAppendTime.
    pub async fn new_topic(&self, prefix: &str, partitions: i32) -> String {
        let name = self.unique_name(prefix);
        self.create_topic(&name, partitions, &[("message.timestamp.type", "LogAppendTime")]).await;
        name
    }

    /// Creates the topic and waits until every partition has a leader.
    pub async fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let start = Instant::now();
        loop {
            let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            for (key, value) in configs {
                topic = topic.set(key, value);
            }
            let result = self.admin().create_topics([&topic], &options()).await.unwrap();
            match &result[0] {
                Ok(_) => break,
                // A deletion that is still under way.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if start.elapsed() < LIMIT => {}
                Err((name, code)) => panic!("cannot create the topic {name}: {code}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.until(|found| found.is_some_and(|leaders| leaders.len() == partitions as usize), name).await;
    }

    /// Deletes the topic and waits until the broker no longer names it.
    pub async fn delete_topic(&self, name: &str) {
        let result = self.admin().delete_topics(&[name], &options()).await.unwrap();
        result[0].as_ref().unwrap_or_else(|(name, code)| panic!("cannot delete the topic {name}: {code}"));
        self.until(|found| found.is_none(), name).await;
    }

    /// Deletes the topic and creates it again, empty and with a new topic id.
    pub async fn recreate_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        self.delete_topic(name).await;
        self.create_topic(name, partitions, configs).await;
    }

    /// Raises the number of partitions.
    pub async fn add_partitions(&self, name: &str, partitions: usize) {
        let new = NewPartitions::new(name, partitions);
        let result = self.admin().create_partitions([&new], &options()).await.unwrap();
        result[0].as_ref().unwrap_or_else(|(name, code)| panic!("cannot add partitions to {name}: {code}"));
        self.until(|found| found.is_some_and(|leaders| leaders.len() == partitions), name).await;
    }

    /// Deletes the records of a partition below `offset`, as retention does.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let result = self.admin().delete_records(&list, &options()).await.unwrap();
        for element in result.elements() {
            element.error().unwrap();
        }
    }

    /// Waits until the partitions that have a leader satisfy `wanted` (`None`: no such topic).
    async fn until(&self, wanted: impl Fn(Option<Vec<i32>>) -> bool, topic: &str) {
        let client = self.reader();
        let start = Instant::now();
        loop {
            // Asking for all topics never creates one.
            let metadata = client.fetch_metadata(None, LIMIT).unwrap();
            let found = metadata.topics().iter().find(|t| t.name() == topic).map(|t| {
                t.partitions().iter().filter(|p| p.leader() >= 0 && p.error().is_none()).map(|p| p.id()).collect()
            });
            if wanted(found) {
                return;
            }
            assert!(start.elapsed() < LIMIT, "the topic {topic} did not come to be as asked within {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Produces one record, waits for the acknowledgement, and returns its offset.
    pub async fn produce(&self, topic: &str, partition: i32, record: Record<'_>) -> i64 {
        let offsets = self.produce_all(topic, partition, &[record]).await;
        offsets[0]
    }

    /// Produces records in order, waits for all acknowledgements, and returns their offsets.
    pub async fn produce_all(&self, topic: &str, partition: i32, records: &[Record<'_>]) -> Vec<i64> {
        let producer = self.producer();
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            let mut message: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(partition);
            message.key = record.key;
            message.payload = record.value;
            message.timestamp = record.timestamp_ms;
            if !record.headers.is_empty() {
                message.headers = Some(
                    record
                        .headers
                        .iter()
                        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value })),
                );
            }
            loop {
                match producer.send_result(message) {
                    Ok(delivery) => {
                        sent.push(delivery);
                        break;
                    }
                    Err((error, back)) => {
                        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                        message = back;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        }
        let mut offsets = Vec::with_capacity(sent.len());
        for delivery in sent {
            let delivered = delivery.await.unwrap().unwrap_or_else(|(error, _)| panic!("not delivered: {error}"));
            offsets.push(delivered.offset);
        }
        offsets
    }

    /// Produces values in one transaction and commits or aborts it; either leaves a marker in the log.
    pub async fn produce_in_transaction(&self, topic: &str, partition: i32, values: &[&[u8]], commit: bool) {
        let mut config = self.client();
        config.set("transactional.id", self.unique_name("transaction"));
        let (topic, values) = (topic.to_owned(), values.iter().map(|v| v.to_vec()).collect::<Vec<_>>());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = config.create().unwrap();
            producer.init_transactions(LIMIT).unwrap();
            producer.begin_transaction().unwrap();
            for value in &values {
                let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).partition(partition).payload(value);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(LIMIT).unwrap();
            if commit {
                producer.commit_transaction(LIMIT).unwrap();
            } else {
                producer.abort_transaction(LIMIT).unwrap();
            }
        })
        .await
        .unwrap();
    }

    /// The offsets at which a partition has records now.
    pub fn offsets_there(&self, topic: &str, partition: i32) -> Vec<i64> {
        let mut config = self.client();
        config.set("group.id", "tests").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        let client: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        client.assign(&list).unwrap();
        let mut offsets = Vec::new();
        loop {
            match client.poll(LIMIT) {
                Some(Ok(record)) => offsets.push(record.offset()),
                Some(Err(KafkaError::PartitionEOF(_))) => return offsets,
                other => panic!("the records of {topic}/{partition} cannot be read: {other:?}"),
            }
        }
    }

    /// Lets the broker look for records to be compacted away five times a second, not every fifteen seconds.
    pub async fn clean_logs_often(&self) {
        let broker = AlterConfig::new(ResourceSpecifier::Broker(1)).set("log.cleaner.backoff.ms", "200");
        let result = self.admin().alter_configs([&broker], &options()).await.unwrap();
        result[0].as_ref().unwrap_or_else(|(_, code)| panic!("the broker does not take the setting: {code}"));
    }

    /// Per partition the offset that the next record gets (markers and uncommitted records included).
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        self.watermarks(topic).into_iter().map(|(partition, (_, end))| (partition, end)).collect()
    }

    /// Per partition the first offset that is still there and the one that the next record gets.
    pub fn watermarks(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        let client = self.reader();
        let metadata = client.fetch_metadata(Some(topic), LIMIT).unwrap();
        let partitions = metadata.topics()[0].partitions();
        assert!(!partitions.is_empty(), "the topic {topic} is not there");
        partitions.iter().map(|p| (p.id(), client.fetch_watermarks(topic, p.id(), LIMIT).unwrap())).collect()
    }

    /// The state of a group, as the broker calls it.
    pub fn group_state(&self, group: &str) -> String {
        let client: BaseConsumer = self.client().create().unwrap();
        let groups = client.fetch_group_list(Some(group), LIMIT).unwrap();
        groups.groups().first().map(|found| found.state().to_owned()).unwrap_or_default()
    }

    /// The offset that a group has committed, per partition.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, Option<i64>> {
        let client: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in self.end_offsets(topic).keys() {
            list.add_partition(topic, *partition);
        }
        let offsets = client.committed_offsets(list, LIMIT).unwrap();
        offsets.elements().iter().map(|e| (e.partition(), e.offset().to_raw().filter(|raw| *raw >= 0))).collect()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT))
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn the_shared_broker_keeps_what_is_produced() {
        let kafka = broker().await;
        let topic = kafka.new_topic("shared", 2).await;
        let header = [("origin", Some(&b"here"[..]))];
        let record = Record { key: Some(b"k"), headers: &header, ..Record::of(b"v") };
        assert_eq!(kafka.produce(&topic, 1, record).await, 0);
        let tombstone = Record { key: Some(b"k"), ..Record::default() };
        assert_eq!(kafka.produce(&topic, 1, tombstone).await, 1);
        assert_eq!(kafka.end_offsets(&topic), BTreeMap::from([(0, 0), (1, 2)]));
        if kafka.lacks("partitions added to a topic, records taken away from a log's begin, transactions") {
            return;
        }
        kafka.add_partitions(&topic, 3).await;
        kafka.delete_records(&topic, 1, 1).await;
        assert_eq!(kafka.watermarks(&topic), BTreeMap::from([(0, (0, 0)), (1, (1, 2)), (2, (0, 0))]));
        kafka.produce_in_transaction(&topic, 0, &[b"kept"], true).await;
        kafka.produce_in_transaction(&topic, 0, &[b"dropped"], false).await;
        // A marker stands behind each transaction.
        assert_eq!(kafka.end_offsets(&topic)[&0], 4);
        kafka.recreate_topic(&topic, 1, &[]).await;
        assert_eq!(kafka.end_offsets(&topic), BTreeMap::from([(0, 0)]));
    }

    #[tokio::test]
    async fn a_killed_broker_comes_back_with_its_data() {
        let mut kafka = OwnBroker::start().await;
        let topic = kafka.new_topic("own", 1).await;
        assert_eq!(kafka.produce(&topic, 0, Record::of(b"before")).await, 0);
        kafka.kill();
        kafka.restart();
        assert_eq!(kafka.produce(&topic, 0, Record::of(b"after")).await, 1);
        kafka.pause();
        kafka.resume();
        assert_eq!(kafka.end_offsets(&topic)[&0], 2);
    }
}
