//! Every metric: its name, unit and description, in one place. The Grafana dashboards and docs/operations.md are
//! checked against this list by a test.
//!
//! Metrics of [`Origin::Board`] are computed from the board when Prometheus scrapes, so that the series of a revoked
//! partition end with it. Metrics of [`Origin::Recorder`] are events that actors count or time as they happen, once a
//! flush or rarer:
//!
//! ```
//! use boathouse::telemetry::names;
//! names::BRONZE_COMMIT_SECONDS.observe(std::time::Duration::from_millis(3), &["user_events"]);
//! names::BRONZE_ROWS.add(20_000, &["user_events"]);
//! ```

use std::time::Duration;

use metrics::{Key, KeyName, Label, Level, Metadata, SharedString, Unit};

/// How a metric behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word in Prometheus' TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Where a metric's values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Computed from the board at each scrape.
    Board,
    /// Recorded by actors as it happens.
    Recorder,
}

/// What is known of a metric before it has a value.
#[derive(Debug)]
pub struct Definition {
    /// The name in Prometheus; its unit is in it.
    pub name: &'static str,
    pub kind: Kind,
    pub origin: Origin,
    /// Names of its labels, in the order of the values given with each record.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub description: &'static str,
    /// Upper bounds of a histogram's buckets, in the unit of the name.
    pub buckets: &'static [f64],
}

impl Definition {
    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(self.labels.len(), values.len(), "{} takes labels {:?}", self.name, self.labels);
        let labels: Vec<Label> =
            self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, value.to_string())).collect();
        Key::from_parts(self.name, labels)
    }
}

const METADATA: Metadata<'static> = Metadata::new("boathouse", Level::INFO, None);

/// A count of events that actors record; it only grows.
#[derive(Debug)]
pub struct Counter(Definition);

impl Counter {
    const fn new(name: &'static str, labels: &'static [&'static str], description: &'static str) -> Self {
        Self(Definition { name, kind: Kind::Counter, origin: Origin::Recorder, labels, description, buckets: &[] })
    }

    /// Adds to the series with these label values, in the order of the definition's labels.
    pub fn add(&self, n: u64, label_values: &[&str]) {
        let key = self.0.key(label_values);
        metrics::with_recorder(|r| r.register_counter(&key, &METADATA).increment(n));
    }
}

/// Durations that actors record.
#[derive(Debug)]
pub struct Histogram(Definition);

impl Histogram {
    const fn seconds(
        name: &'static str,
        labels: &'static [&'static str],
        description: &'static str,
        buckets: &'static [f64],
    ) -> Self {
        Self(Definition { name, kind: Kind::Histogram, origin: Origin::Recorder, labels, description, buckets })
    }

    /// Records one duration in the series with these label values, in the order of the definition's labels.
    pub fn observe(&self, duration: Duration, label_values: &[&str]) {
        let key = self.0.key(label_values);
        metrics::with_recorder(|r| r.register_histogram(&key, &METADATA).record(duration.as_secs_f64()));
    }
}

const fn board(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    description: &'static str,
) -> Definition {
    Definition { name, kind, origin: Origin::Board, labels, description, buckets: &[] }
}

/// For work that takes from a tenth of a millisecond to half a minute.
const WORK: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// For the way of a record through the system: fine around the flush intervals, up to an hour of outage.
const END_TO_END: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 45.0,
    60.0, 120.0, 300.0, 900.0, 3600.0,
];

/// For batch tasks: from a look at a log to a rebuild of everything.
const BATCH: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0];

const PARTITION: &[&str] = &["pipeline", "topic", "partition"];
const PIPELINE: &[&str] = &["pipeline"];
const TABLE: &[&str] = &["pipeline", "table"];

// ---- computed from the board -------------------------------------------------------------------------------------

pub const RECORDS: Definition = board(
    "boathouse_records_total",
    Kind::Counter,
    PARTITION,
    "Records read from Kafka and handed to both sinks since this instance took the partition up.",
);
pub const BYTES: Definition = board(
    "boathouse_bytes_total",
    Kind::Counter,
    PARTITION,
    "Bytes of the keys and values of those records, uncompressed.",
);
pub const VERDICTS: Definition = board(
    "boathouse_verdicts_total",
    Kind::Counter,
    &["pipeline", "topic", "partition", "verdict"],
    "Those records by verdict: ok, late, future, unparsed.",
);
pub const LAG: Definition = board(
    "boathouse_lag_records",
    Kind::Gauge,
    PARTITION,
    "Offsets between the read position and the end of what may be read: the broker's high watermark, or where a transaction that is open begins.",
);
pub const PENDING: Definition = board(
    "boathouse_pending_records",
    Kind::Gauge,
    &["pipeline", "topic", "partition", "sink"],
    "Offsets that were read and that the sink (bronze, realtime) does not hold yet.",
);
pub const POSITION: Definition = board(
    "boathouse_position_offset",
    Kind::Gauge,
    &["pipeline", "topic", "partition", "stage"],
    "Next offset of a stage (read, bronze, realtime), exclusive: everything below it is done.",
);
pub const WATERMARK_DELAY: Definition = board(
    "boathouse_watermark_delay_seconds",
    Kind::Gauge,
    PARTITION,
    "Wall clock less the partition's event-time watermark; none before the first event.",
);
pub const PARTITION_PHASE: Definition = board(
    "boathouse_partition_phase",
    Kind::Gauge,
    &["pipeline", "topic", "partition", "phase"],
    "1 for the phase that the partition is in, else 0: starting, running, paused, recovering, stopped.",
);
pub const STUCK: Definition = board(
    "boathouse_partitions_stuck",
    Kind::Gauge,
    &[],
    "Partitions that have work and make no progress, or have stopped; see /readyz for the reasons.",
);
pub const READY: Definition =
    board("boathouse_ready", Kind::Gauge, &[], "1 while /readyz answers 200, else 0; see /readyz for the reasons.");
pub const RESTARTS: Definition = board(
    "boathouse_actor_restarts_total",
    Kind::Counter,
    &["kind", "actor"],
    "How often the actor was built again after a failure.",
);
pub const ACTOR_UP: Definition = board(
    "boathouse_actor_up",
    Kind::Gauge,
    &["kind", "actor"],
    "1 while the actor runs, 0 while its supervisor waits or has given up.",
);
pub const ACTOR_MAILBOX: Definition = board(
    "boathouse_actor_mailbox_messages",
    Kind::Gauge,
    &["kind", "actor"],
    "Messages that were sent to the actor and that it has not taken up; a batch is one message.",
);
pub const SINK_UP: Definition =
    board("boathouse_sink_up", Kind::Gauge, &["sink"], "1 while the sink takes what it is given, else 0.");
pub const MEMORY_USED: Definition = board(
    "boathouse_memory_used_bytes",
    Kind::Gauge,
    &[],
    "Bytes that Bronze files being filled or written, batches that wait for them, window totals, and batch queries hold.",
);
pub const MEMORY_BUDGET: Definition = board(
    "boathouse_memory_budget_bytes",
    Kind::Gauge,
    &[],
    "The whole memory budget: memory.total, or memory.budget and batch.memory together.",
);
pub const DISK_FREE: Definition = board(
    "boathouse_disk_free_bytes",
    Kind::Gauge,
    &["place"],
    "Room on the file system of a local place: data (data_dir), lakehouse.",
);
pub const DISK_SIZE: Definition =
    board("boathouse_disk_size_bytes", Kind::Gauge, &["place"], "Size of the file system of a local place.");
pub const UPTIME: Definition = board("boathouse_uptime_seconds", Kind::Gauge, &[], "Time since the daemon started.");
pub const PROCESS_RESIDENT: Definition =
    board("process_resident_memory_bytes", Kind::Gauge, &[], "Resident memory of the daemon.");
pub const PROCESS_CPU: Definition =
    board("process_cpu_seconds_total", Kind::Counter, &[], "User and system CPU time of the daemon.");

pub const BATCH_RUNNING: Definition =
    board("boathouse_batch_running", Kind::Gauge, PIPELINE, "1 while this instance runs the pipeline's batch, else 0.");
pub const BATCH_PAUSED: Definition =
    board("boathouse_batch_paused", Kind::Gauge, PIPELINE, "1 while the pipeline's schedule is paused, else 0.");
pub const BATCH_LATE: Definition = board(
    "boathouse_batch_late",
    Kind::Gauge,
    PIPELINE,
    "1 while the newest slot has no successful run although schedule.deadline has passed, else 0.",
);
pub const BATCH_LAST_SUCCESS: Definition = board(
    "boathouse_batch_last_success_timestamp_seconds",
    Kind::Gauge,
    PIPELINE,
    "When the newest successful batch run ended, in seconds since 1970; none before the first.",
);
pub const LAYER_AGE: Definition = board(
    "boathouse_layer_age_seconds",
    Kind::Gauge,
    &["pipeline", "layer"],
    "Time since the begin of the newest batch task that brought the layer (silver, gold, clickhouse) up to date.",
);

pub const TABLE_FILES: Definition =
    board("boathouse_table_files", Kind::Gauge, TABLE, "Data files of the newest version of the Delta table.");
pub const TABLE_SMALL_FILES: Definition =
    board("boathouse_table_small_files", Kind::Gauge, TABLE, "Those of them that are smaller than 8 MiB.");
pub const TABLE_BYTES: Definition =
    board("boathouse_table_size_bytes", Kind::Gauge, TABLE, "Length of those files together.");
pub const TABLE_ROWS: Definition =
    board("boathouse_table_rows", Kind::Gauge, TABLE, "Rows of those files, by their statistics.");
pub const TABLE_LOG_ENTRIES: Definition = board(
    "boathouse_table_log_entries",
    Kind::Gauge,
    TABLE,
    "Entries that the table's log holds; cleanup takes those older than 30 days.",
);
pub const UPKEEP_LAST_SUCCESS: Definition = board(
    "boathouse_upkeep_last_success_timestamp_seconds",
    Kind::Gauge,
    PIPELINE,
    "When the newest successful upkeep of the tables ended, in seconds since 1970; none before the first.",
);
pub const RECONCILE_RUNNING: Definition = board(
    "boathouse_reconcile_running",
    Kind::Gauge,
    &[],
    "1 while this instance compares every layer with the one that it is made from.",
);
pub const RECONCILE_LAST: Definition = board(
    "boathouse_reconcile_last_run_timestamp_seconds",
    Kind::Gauge,
    &[],
    "When this instance's newest comparison of the layers came to its verdict, kept over restarts.",
);
pub const RECONCILE_TOOK: Definition =
    board("boathouse_reconcile_last_run_seconds", Kind::Gauge, &[], "How long that comparison took.");
pub const RECONCILE_DIFFERING: Definition = board(
    "boathouse_reconcile_differing_rows",
    Kind::Gauge,
    &["pipeline", "layer"],
    "Rows of a layer that were missing, unknown or different in that comparison; at least 1 where it differs at all.",
);

// ---- recorded by actors ------------------------------------------------------------------------------------------

pub const BRONZE_FLUSH_SECONDS: Histogram = Histogram::seconds(
    "boathouse_bronze_flush_seconds",
    PIPELINE,
    "A Bronze flush from the moment its rows are frozen until its commit is known.",
    WORK,
);
pub const BRONZE_ENCODE_SECONDS: Histogram = Histogram::seconds(
    "boathouse_bronze_encode_seconds",
    PIPELINE,
    "Encoding time that went into one Parquet file.",
    WORK,
);
pub const BRONZE_COMMIT_SECONDS: Histogram = Histogram::seconds(
    "boathouse_bronze_commit_seconds",
    PIPELINE,
    "Putting one entry into the Delta log, retries included.",
    WORK,
);
pub const BRONZE_ROWS: Counter =
    Counter::new("boathouse_bronze_rows_total", PIPELINE, "Rows that Bronze commits have made durable.");
pub const BRONZE_BYTES: Counter =
    Counter::new("boathouse_bronze_bytes_total", PIPELINE, "Bytes of the Parquet files of those rows, compressed.");
pub const BRONZE_FENCED: Counter = Counter::new(
    "boathouse_bronze_fenced_total",
    PIPELINE,
    "Times that everything in hand was dropped and read again: another instance had committed, or the known table was too old.",
);
pub const BRONZE_UNKNOWN: Counter = Counter::new(
    "boathouse_bronze_unknown_total",
    PIPELINE,
    "Further tries at putting a log entry: its version was taken, or the store did not tell whether it landed.",
);
pub const REALTIME_FLUSH_SECONDS: Histogram = Histogram::seconds(
    "boathouse_realtime_flush_seconds",
    PIPELINE,
    "A realtime flush from its intent row until its positions row is acknowledged.",
    WORK,
);
pub const REALTIME_ROWS: Counter =
    Counter::new("boathouse_realtime_rows_total", PIPELINE, "Rows of partial totals that ClickHouse has acknowledged.");
pub const REALTIME_FAILURES: Counter =
    Counter::new("boathouse_realtime_failures_total", PIPELINE, "Realtime flushes that failed and were tried again.");
pub const REALTIME_DROPPED: Counter = Counter::new(
    "boathouse_realtime_dropped_states_total",
    PIPELINE,
    "Window states dropped to keep the memory cap while ClickHouse was away; they are counted again from Bronze.",
);
pub const END_TO_END_SECONDS: Histogram = Histogram::seconds(
    "boathouse_end_to_end_seconds",
    &["pipeline", "sink"],
    "Kafka timestamp of the oldest record in a flush until the sink (bronze, realtime) has acknowledged it.",
    END_TO_END,
);

pub const BATCH_RUNS: Counter = Counter::new(
    "boathouse_batch_runs_total",
    &["pipeline", "outcome"],
    "Batch runs that this instance brought to their end, by outcome: succeeded, skipped, failed, cancelled.",
);
pub const UPKEEP_RUNS: Counter = Counter::new(
    "boathouse_upkeep_runs_total",
    &["pipeline", "outcome"],
    "Upkeeps of the tables that this instance brought to their end, by outcome: succeeded, failed, cancelled.",
);
pub const BATCH_TASK_SECONDS: Histogram = Histogram::seconds(
    "boathouse_batch_task_seconds",
    &["pipeline", "task"],
    "One attempt at a task of the batch, whatever its end.",
    BATCH,
);
pub const BATCH_DEADLINES_MISSED: Counter = Counter::new(
    "boathouse_batch_deadlines_missed_total",
    PIPELINE,
    "Slots whose run had not succeeded when schedule.deadline had passed.",
);
pub const EXPECTATIONS: Counter = Counter::new(
    "boathouse_expectations_checked_total",
    &["pipeline", "expectation", "severity", "outcome"],
    "Expectations checked before gold was served, and comparisons of what is served with Delta: holds, broken.",
);

/// All metrics, in the order of docs/operations.md.
pub const ALL: &[&Definition] = &[
    &RECORDS,
    &BYTES,
    &VERDICTS,
    &LAG,
    &PENDING,
    &POSITION,
    &WATERMARK_DELAY,
    &PARTITION_PHASE,
    &STUCK,
    &READY,
    &RESTARTS,
    &ACTOR_UP,
    &ACTOR_MAILBOX,
    &SINK_UP,
    &MEMORY_USED,
    &MEMORY_BUDGET,
    &DISK_FREE,
    &DISK_SIZE,
    &UPTIME,
    &PROCESS_RESIDENT,
    &PROCESS_CPU,
    &BATCH_RUNNING,
    &BATCH_PAUSED,
    &BATCH_LATE,
    &BATCH_LAST_SUCCESS,
    &LAYER_AGE,
    &TABLE_FILES,
    &TABLE_SMALL_FILES,
    &TABLE_BYTES,
    &TABLE_ROWS,
    &TABLE_LOG_ENTRIES,
    &UPKEEP_LAST_SUCCESS,
    &RECONCILE_RUNNING,
    &RECONCILE_LAST,
    &RECONCILE_TOOK,
    &RECONCILE_DIFFERING,
    &BRONZE_FLUSH_SECONDS.0,
    &BRONZE_ENCODE_SECONDS.0,
    &BRONZE_COMMIT_SECONDS.0,
    &BRONZE_ROWS.0,
    &BRONZE_BYTES.0,
    &BRONZE_FENCED.0,
    &BRONZE_UNKNOWN.0,
    &REALTIME_FLUSH_SECONDS.0,
    &REALTIME_ROWS.0,
    &REALTIME_FAILURES.0,
    &REALTIME_DROPPED.0,
    &END_TO_END_SECONDS.0,
    &BATCH_RUNS.0,
    &UPKEEP_RUNS.0,
    &BATCH_TASK_SECONDS.0,
    &BATCH_DEADLINES_MISSED.0,
    &EXPECTATIONS.0,
];

/// Begins the counters of a pipeline at 0, so that the first event of each shows as an increase.
pub fn begin(pipeline: &str) {
    let counters = [
        &BRONZE_ROWS,
        &BRONZE_BYTES,
        &BRONZE_FENCED,
        &BRONZE_UNKNOWN,
        &REALTIME_ROWS,
        &REALTIME_FAILURES,
        &REALTIME_DROPPED,
    ];
    counters.iter().for_each(|counter| counter.add(0, &[pipeline]));
    BATCH_DEADLINES_MISSED.add(0, &[pipeline]);
    for outcome in ["succeeded", "skipped", "failed", "cancelled"] {
        BATCH_RUNS.add(0, &[pipeline, outcome]);
    }
    for outcome in ["succeeded", "failed", "cancelled"] {
        UPKEEP_RUNS.add(0, &[pipeline, outcome]);
    }
}

/// Hands the descriptions of recorded metrics to the recorder; once, at the start.
pub(super) fn describe(recorder: &dyn metrics::Recorder) {
    for metric in ALL.iter().filter(|m| m.origin == Origin::Recorder) {
        let (name, text) = (KeyName::from_const_str(metric.name), SharedString::const_str(metric.description));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, text),
            Kind::Gauge => recorder.describe_gauge(name, None, text),
            Kind::Histogram => recorder.describe_histogram(name, Some(Unit::Seconds), text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let mut seen = std::collections::BTreeSet::new();
        for m in ALL {
            assert!(seen.insert(m.name), "{} is defined twice", m.name);
            assert!(m.description.ends_with('.'), "{}: a description is a sentence", m.name);
            match m.kind {
                Kind::Counter => assert!(m.name.ends_with("_total"), "{} is a counter", m.name),
                Kind::Gauge => assert!(!m.name.ends_with("_total"), "{} is a gauge", m.name),
                Kind::Histogram => {
                    assert!(m.name.ends_with("_seconds"), "{} is a histogram of seconds", m.name);
                    assert!(m.buckets.is_sorted() && !m.buckets.is_empty(), "{} needs ascending buckets", m.name);
                }
            }
        }
    }
}
