//! A lakehouse of a test's own, filled by the real Bronze writer, and questions to it.

use std::path::PathBuf;

use arrow::util::pretty::pretty_format_batches;
use boathouse::batch::silver::{SilverOutcome, run_silver};
use boathouse::batch::{Lake, TaskContext};
use boathouse::bronze::BronzeError;
use boathouse::config::Pipeline;
use chrono::DateTime;
use datafusion::prelude::SessionContext;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::bronze::{NOW, Record, Writer, event, pipeline};
use crate::support::folder_in_memory;

/// Columns that say everything about a row.
const COLUMNS: &str = "topic, generation, partition, \"offset\", kafka_timestamp, event_id, user_id, event_type, page, \
                       source, event_time, time_status, ingestion_time";

/// How many random worlds a test looks at; more by `BOATHOUSE_SEEDS`.
pub fn seeds(default: u64) -> u64 {
    std::env::var("BOATHOUSE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// The event-hour of second `n`, as plans name it.
pub fn hour_of(n: i64) -> String {
    DateTime::from_timestamp_micros(NOW + n * 1_000_000).unwrap().format("%Y-%m-%dT%H").to_string()
}

/// An event of second `n` with these values.
pub fn record(n: i64, id: &str, kind: &str, page: &str, source: &str) -> Record {
    let at = DateTime::from_timestamp_micros(NOW + n * 1_000_000).unwrap().format("%Y-%m-%dT%H:%M:%S");
    let value = format!(
        r#"{{"event_id":"{id}","user_id":7,"event_type":"{kind}","page":"{page}","timestamp":"{at}","source":"{source}"}}"#
    );
    Record { value: Some(value.into_bytes()), ..event(n) }
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub lake: Lake,
    pub pipeline: Pipeline,
    writer: Option<Writer>,
    /// Seconds of event time that have passed.
    clock: i64,
}

impl World {
    pub async fn new() -> Self {
        Self::without_bronze().with_bronze().await
    }

    /// A world of many, in memory.
    pub async fn in_memory() -> Self {
        Self::of(folder_in_memory()).with_bronze().await
    }

    pub fn without_bronze() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    async fn with_bronze(mut self) -> Self {
        self.writer = Some(Writer::open(self.folder.path(), &self.pipeline, &[0, 1]).await.unwrap());
        self
    }

    fn of(folder: tempfile::TempDir) -> Self {
        let lake = Lake::at(folder.path().to_str().unwrap(), 64 << 20, folder.path().join("spill")).unwrap();
        Self { folder, lake, pipeline: pipeline(), writer: None, clock: 0 }
    }

    /// The same lakehouse with another limit of memory.
    pub fn lake_with(&self, memory: usize) -> Lake {
        Lake::at(self.folder.path().to_str().unwrap(), memory, self.folder.path().join("spill")).unwrap()
    }

    /// What is taken from Kafka from here on is taken so many days later.
    pub fn days_pass(&mut self, days: i64) {
        let feeds = self.writer.as_mut().unwrap().feeds.values_mut();
        feeds.for_each(|feed| feed.received_at += days * 86_400_000_000);
    }

    /// The writer anew, as a daemon that is started again.
    pub async fn reopen(&mut self) -> Result<(), BronzeError> {
        let at = self.writer.take().unwrap().feeds[&0].received_at;
        let mut writer = Writer::open(self.folder.path(), &self.pipeline, &[0, 1]).await?;
        writer.feeds.values_mut().for_each(|feed| feed.received_at = at);
        self.writer = Some(writer);
        Ok(())
    }

    /// One commit of Bronze with these records of a partition.
    pub async fn commit(&mut self, partition: i32, records: &[Record]) {
        let writer = self.writer.as_mut().unwrap();
        let batch = writer.feeds.get_mut(&partition).unwrap().batch(records);
        writer.commit(&[batch]).await.unwrap();
    }

    /// Commits of Bronze with `count` records of every kind: copies, late ones, wrong clocks, wrong values, no events.
    pub async fn fill(&mut self, seed: u64, count: usize) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut left = count;
        while left > 0 {
            let length = random.random_range(1..=left.min(150));
            let records: Vec<Record> = (0..length).map(|_| self.any(&mut random)).collect();
            let partition = random.random_range(0..2);
            self.commit(partition, &records).await;
            left -= length;
        }
    }

    fn any(&mut self, random: &mut ChaCha8Rng) -> Record {
        self.clock += random.random_range(0..40);
        let now = self.clock;
        let sent = event(now).timestamp;
        let back = |random: &mut ChaCha8Rng| now - random.random_range(0..now.clamp(1, 30_000));
        match random.random_range(0..100) {
            // A copy of an earlier event, sent again now, before, or at an unknown time.
            0..10 => {
                let timestamp = [sent, sent - 50_000, -1][random.random_range(0..3)];
                Record { timestamp, ..event(back(random)) }
            }
            10..20 => Record { timestamp: sent, ..event(back(random)) },
            20..22 => Record { value: Some(b"{\"event_id\":1}".to_vec()), ..event(now) },
            22..24 => Record { value: None, ..event(now) },
            24..26 => Record { timestamp: sent, ..event(now + 4000) },
            26..28 => record(now, &format!("k{now}"), "dance", "/", "web"),
            28..30 => record(now, &format!("p{now}"), "click", "", "web"),
            30..32 => record(now, "", "click", "/", "web"),
            32..34 => record(now, &format!("s{now}"), "click", "/", "tv"),
            _ => event(now),
        }
    }

    pub async fn run(&self) -> SilverOutcome {
        let context = TaskContext::detached();
        run_silver(&self.lake, &self.pipeline, &context).await.unwrap_or_else(|e| panic!("{e}")).0
    }

    pub fn table(&self, name: &str) -> PathBuf {
        self.folder.path().join(match name {
            "bronze" => "bronze/user_events",
            "silver" => "silver/user_events",
            _ => "silver/user_events_refused",
        })
    }

    /// The files of silver's newest version.
    pub fn silver_files(&self) -> Vec<String> {
        let table = self.table("silver");
        let runtime = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let url = deltalake::ensure_table_uri(table.to_str().unwrap()).unwrap();
                let table = deltalake::open_table(url).await.unwrap();
                let mut files: Vec<String> = table.get_file_uris().unwrap().collect();
                files.sort();
                files
            })
        });
        runtime.join().unwrap()
    }

    /// Takes both of silver's tables away.
    pub fn delete_silver(&self) {
        std::fs::remove_dir_all(self.folder.path().join("silver")).unwrap();
    }

    /// The rows of a statement on the tables bronze, silver and refused, as text.
    pub async fn query(&self, sql: &str) -> String {
        let session = SessionContext::new();
        for name in ["bronze", "silver", "refused"] {
            if !self.table(name).exists() {
                continue;
            }
            let url = deltalake::ensure_table_uri(self.table(name).to_str().unwrap()).unwrap();
            let table = deltalake::open_table(url).await.unwrap();
            session.register_table(name, table.table_provider().await.unwrap()).unwrap();
        }
        let frame = session.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        pretty_format_batches(&frame.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"))).unwrap().to_string()
    }

    /// What [`Self::query`] gives for one row of a partition and an offset.
    pub fn grid(&self, partition: i32, offset: i64) -> String {
        format!(
            "+-----------+--------+\n| partition | offset |\n+-----------+--------+\n| {partition:<9} | {offset:<6} |\n+-----------+--------+"
        )
    }

    pub async fn rows(&self, table: &str) -> u64 {
        let text = self.query(&format!("select 'n' || count(*) from {table}")).await;
        let digits = text.split("| n").nth(1).unwrap_or_default().trim_start();
        digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().unwrap()
    }

    /// All rows of a table, in the order of their places in Kafka.
    pub async fn all_rows(&self, table: &str) -> String {
        let extra = match table {
            "bronze" => ", key, headers, parse_error, payload, ingestion_date",
            "refused" => ", array_to_string(reasons, ' ')",
            _ => ", event_date, event_hour",
        };
        self.query(&format!("select {COLUMNS}{extra} from {table} order by generation, partition, \"offset\"")).await
    }

    /// Compares both tables with what SQL gives from Bronze.
    pub async fn assert_recounted(&self) {
        let valid = "time_status in ('ok', 'late') and event_type in ('login', 'click', 'purchase', 'logout') \
                     and source in ('web', 'mobile') and event_id <> '' and page <> ''";
        let expected = format!(
            "select {COLUMNS} from (select *, row_number() over (partition by event_id, date_trunc('hour', event_time) \
             order by kafka_timestamp nulls last, generation, partition, \"offset\") n from bronze where {valid}) where n = 1"
        );
        let actual = format!(
            "select {COLUMNS} from silver where event_date = cast(event_time as date) \
             and event_hour = cast(date_part('hour', event_time) as int)"
        );
        let refused =
            format!("select generation, partition, \"offset\", payload from bronze where ({valid}) is not true");
        let kept = "select generation, partition, \"offset\", payload from refused".to_string();
        for (what, left, right) in [("silver", expected, actual), ("refused", refused, kept)] {
            for (sign, a, b) in [("missing", &left, &right), ("too many", &right, &left)] {
                let text = self.query(&format!("select * from (({a}) except all ({b})) limit 5")).await;
                assert!(text.lines().count() <= 4, "{what}: {sign}:\n{text}");
            }
        }
    }
}
