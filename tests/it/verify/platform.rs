//! Bronze by the real writer, the batch by the real tasks, the real engine, and the program's commands on all of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use boathouse::batch::{Lake, TaskContext, publish_gold, run_gold, run_silver};
use boathouse::config::{self, Config, Pipeline};
use boathouse::serving::Client;
use chrono::DateTime;
use deltalake::DeltaTable;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::bronze::{NOW, Record, Writer, event};
use crate::support::daemon::Site;
use crate::support::engine::Engine;

/// Seconds between two events, so that a few hundred of them span three days.
const STEP: i64 = 600;

pub struct Platform {
    pub engine: Engine,
    pub site: Site,
    pub lake: Lake,
    pub pipeline: Arc<Pipeline>,
    pub writer: Writer,
    /// Records that Bronze has.
    pub records: u64,
    random: ChaCha8Rng,
    next: i64,
}

/// The n-th event, with another id, type, page and source.
pub fn record(n: i64, id: &str, kind: &str, page: &str, source: &str) -> Record {
    let at = DateTime::from_timestamp_micros(NOW + n * 1_000_000).expect("a time").format("%Y-%m-%dT%H:%M:%S");
    let value = format!(
        r#"{{"event_id":"{id}","user_id":7,"event_type":"{kind}","page":"{page}","timestamp":"{at}","source":"{source}"}}"#
    );
    Record { value: Some(value.into_bytes()), ..event(n) }
}

/// The n-th event of a platform.
pub fn nth(n: i64) -> Record {
    let kind = ["login", "click", "purchase", "logout"][n as usize % 4];
    let at = DateTime::from_timestamp_micros(NOW + n * STEP * 1_000_000).expect("a time").format("%Y-%m-%dT%H:%M:%S");
    let value = format!(
        r#"{{"event_id":"e{n:08}","user_id":{},"event_type":"{kind}","page":"/page/{}","timestamp":"{at}","source":"{}"}}"#,
        n % 20,
        n % 5,
        ["web", "mobile"][n as usize % 2]
    );
    Record { value: Some(value.into_bytes()), ..event(n * STEP) }
}

/// The shipped models beside a site's pipeline.
pub fn with_models(site: &Site) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pipelines/user_events/gold");
    let folder = site.folder.join("config/pipelines/user_events/gold");
    std::fs::create_dir_all(&folder).expect("a folder for models");
    for file in std::fs::read_dir(shipped).expect("the shipped models") {
        let file = file.expect("a model");
        std::fs::copy(file.path(), folder.join(file.file_name())).expect("a copy");
    }
}

impl Platform {
    pub async fn new() -> Self {
        let engine = Engine::start();
        // Nothing here asks Kafka.
        let site = Site::new("127.0.0.1:1", &engine.url, "verify-events");
        with_models(&site);
        let config = Config::load(Some(&site.folder.join("config/boathouse.toml"))).expect("the configuration");
        let pipeline = config.pipelines[0].clone();
        let lakehouse = site.lakehouse();
        let lake = Lake::at(&lakehouse.to_string_lossy(), 256 << 20, site.folder.join("spill")).expect("a lake");
        // The writer of the tests takes its records from this topic.
        let mut written = Pipeline::clone(&pipeline);
        written.topic = "user-events".into();
        let writer = Writer::open(&lakehouse, &written, &[0, 1]).await.expect("Bronze");
        Self { engine, site, lake, pipeline, writer, records: 0, random: ChaCha8Rng::seed_from_u64(1), next: 0 }
    }

    pub fn lakehouse(&self) -> PathBuf {
        self.site.lakehouse()
    }

    /// Commits records of a partition.
    pub async fn commit(&mut self, partition: i32, records: &[Record]) {
        let batch = self.writer.feeds.get_mut(&partition).expect("a partition").batch(records);
        self.writer.commit(&[batch]).await.expect("a commit");
        self.records += records.len() as u64;
    }

    /// Commits events one after the other, and beside them copies, late ones, wrong clocks, wrong values and no events.
    pub async fn fill(&mut self, events: i64) {
        let mut records = Vec::new();
        for _ in 0..events {
            let n = self.next;
            self.next += 1;
            records.push(nth(n));
            let odd = match self.random.random_range(0..20) {
                0 | 1 => Some(nth(n)),
                2 => Some(Record { timestamp: event(n * STEP).timestamp, ..nth(self.random.random_range(0..=n)) }),
                3 => Some(Record { value: Some(b"no event".to_vec()), ..event(n * STEP) }),
                4 => Some(Record { timestamp: event(n * STEP).timestamp, ..nth(n + 10) }),
                5 => Some(record(n * STEP, &format!("p{n}"), "click", "", "web")),
                6 => Some(record(n * STEP, &format!("s{n}"), "dance", "/", "tv")),
                _ => None,
            };
            records.extend(odd);
            if records.len() >= 40 {
                self.commit((n % 2) as i32, &std::mem::take(&mut records)).await;
            }
        }
        self.commit(0, &records).await;
    }

    pub async fn silver(&self) {
        run_silver(&self.lake, &self.pipeline, &TaskContext::detached()).await.expect("silver");
    }

    pub async fn gold(&self) {
        run_gold(&self.lake, &self.pipeline, &TaskContext::detached()).await.expect("gold");
    }

    /// A whole run.
    pub async fn batch(&self, run_id: &str) {
        self.silver().await;
        self.gold().await;
        let clickhouse = config::ClickHouse { url: self.engine.url.clone(), ..config::ClickHouse::default() };
        let client = Client::new(&clickhouse).expect("a client");
        publish_gold(&self.lake, &self.pipeline, &client, run_id, &TaskContext::detached()).await.expect("served");
    }

    async fn open(&self, table: &str) -> DeltaTable {
        let path = self.lakehouse().join(table);
        let url = deltalake::ensure_table_uri(path.to_string_lossy()).expect("a place");
        deltalake::open_table(url).await.expect("a table")
    }

    /// Changes a column of rows by hand.
    pub async fn update(&self, table: &str, rows: &str, column: &str, value: &str) {
        let update = self.open(table).await.update().with_predicate(rows).with_update(column, value);
        let (_, metrics) = update.await.expect("changed by hand");
        assert!(metrics.num_updated_rows > 0, "no row of {table} where {rows}");
    }

    /// Deletes rows by hand.
    pub async fn delete(&self, table: &str, rows: &str) {
        self.open(table).await.delete().with_predicate(rows).await.expect("deleted by hand");
    }

    /// A command's exit code and its answer in JSON.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let output = self.site.run(&[&["--json"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("{arguments:?}: no JSON ({e}): {text}\n{}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code(), value)
    }

    pub fn reconcile(&self, only: &str) -> (Option<i32>, Value) {
        self.command(&["reconcile", "--only", only])
    }

    pub fn reconcile_text(&self, only: &str) -> String {
        let output = self.site.run(&["reconcile", "--only", only]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// The tables that are different, layer by layer, by name.
pub fn differing(report: &Value) -> Vec<String> {
    let layers = ["silver", "refused", "gold", "clickhouse_gold"];
    let of_layer = |layer: &&str| {
        let wrong = report[*layer].as_array().into_iter().flatten().filter(|t| t["verdict"] == "different");
        let mut names: Vec<String> = wrong.map(|t| t["table"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    };
    layers.iter().flat_map(of_layer).collect()
}
