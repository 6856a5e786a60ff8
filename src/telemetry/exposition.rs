//! The board in Prometheus' text format, computed at each scrape: what is not on the board has no series.

use std::fmt::Write;
use std::time::Instant;

use super::batch::{BatchState, TableState};
use super::board::{ActorPhase, Board};
use super::health::{Limits, readiness};
use super::names::{self, Definition};
use super::partition::{PartitionPhase, PartitionState};
use super::process;
use super::reconcile::ReconcileState;
use super::sink::SinkCondition;
use super::status::{delay_seconds, wall_clock_us};
use crate::kafka::Source;
use crate::window::Verdict;

/// Every metric of [`names::Origin::Board`] that has a value now.
pub fn render_board(board: &Board, limits: Limits) -> String {
    let now = Instant::now();
    let mut text = Exposition::default();

    let partitions = board.partitions();
    render_partitions(&mut text, &partitions);

    let actors = board.actors();
    for (id, actor) in &actors {
        text.line(&names::RESTARTS, &[id.kind, &id.name], actor.restarts as f64);
    }
    for (id, actor) in &actors {
        text.line(&names::ACTOR_UP, &[id.kind, &id.name], flag(actor.phase == ActorPhase::Running));
    }
    for (id, actor) in &actors {
        text.line(&names::ACTOR_MAILBOX, &[id.kind, &id.name], actor.inbox.waiting() as f64);
    }
    for (name, sink) in board.sinks() {
        text.line(&names::SINK_UP, &[&name], flag(sink.condition == SinkCondition::Healthy));
    }

    let health = readiness(board, now, limits);
    text.line(&names::STUCK, &[], health.stuck_partitions as f64);
    text.line(&names::READY, &[], flag(health.ready));
    let (used, budget) = board.memory_bytes();
    text.line(&names::MEMORY_USED, &[], used as f64);
    text.line(&names::MEMORY_BUDGET, &[], budget as f64);
    let disks = board.disks();
    for (place, space) in &disks {
        text.line(&names::DISK_FREE, &[place], space.free_bytes as f64);
    }
    for (place, space) in &disks {
        text.line(&names::DISK_SIZE, &[place], space.size_bytes as f64);
    }
    text.line(&names::UPTIME, &[], now.saturating_duration_since(board.started()).as_secs_f64());
    if let Some(bytes) = process::resident_bytes() {
        text.line(&names::PROCESS_RESIDENT, &[], bytes as f64);
    }
    if let Some(seconds) = process::cpu_seconds() {
        text.line(&names::PROCESS_CPU, &[], seconds);
    }
    render_batches(&mut text, &board.batches());
    render_reconcile(&mut text, &board.reconcile(|state| state.clone()));
    text.out
}

fn render_reconcile(text: &mut Exposition, state: &ReconcileState) {
    text.line(&names::RECONCILE_RUNNING, &[], flag(state.running));
    let Some(last) = &state.last else { return };
    text.line(&names::RECONCILE_LAST, &[], last.ended.timestamp_millis() as f64 / 1e3);
    text.line(&names::RECONCILE_TOOK, &[], last.seconds);
    for layer in &last.layers {
        text.line(&names::RECONCILE_DIFFERING, &[&layer.pipeline, &layer.layer], layer.rows as f64);
    }
}

fn render_batches(text: &mut Exposition, batches: &[(String, BatchState)]) {
    let now = chrono::Utc::now();
    for (pipeline, batch) in batches {
        text.line(&names::BATCH_RUNNING, &[pipeline], flag(batch.running.is_some()));
    }
    for (pipeline, batch) in batches {
        text.line(&names::BATCH_PAUSED, &[pipeline], flag(batch.paused.is_some()));
    }
    for (pipeline, batch) in batches {
        text.line(&names::BATCH_LATE, &[pipeline], flag(batch.late));
    }
    for (pipeline, batch) in batches {
        if let Some(ended) = batch.last_success {
            text.line(&names::BATCH_LAST_SUCCESS, &[pipeline], ended.timestamp_millis() as f64 / 1e3);
        }
    }
    for (pipeline, batch) in batches {
        for (layer, fresh) in batch.fresh.layers() {
            if let Some(fresh) = fresh {
                text.line(&names::LAYER_AGE, &[pipeline, layer], (now - fresh).num_milliseconds() as f64 / 1e3);
            }
        }
    }
    let mut each_table = |metric: &Definition, value: fn(&TableState) -> u64| {
        for (pipeline, batch) in batches {
            for table in &batch.upkeep.tables {
                text.line(metric, &[pipeline, &table.table], value(table) as f64);
            }
        }
    };
    each_table(&names::TABLE_FILES, |t| t.files);
    each_table(&names::TABLE_SMALL_FILES, |t| t.files_small);
    each_table(&names::TABLE_BYTES, |t| t.bytes);
    each_table(&names::TABLE_ROWS, |t| t.rows);
    each_table(&names::TABLE_LOG_ENTRIES, |t| t.log_entries);
    for (pipeline, batch) in batches {
        if let Some(ended) = batch.upkeep.last_success {
            text.line(&names::UPKEEP_LAST_SUCCESS, &[pipeline], ended.timestamp_millis() as f64 / 1e3);
        }
    }
}

/// The format wants all series of one metric together, so this goes metric by metric.
fn render_partitions(text: &mut Exposition, partitions: &[(Source, PartitionState)]) {
    let wall_us = wall_clock_us();
    let mut each = |metric: &Definition, value: &dyn Fn(&PartitionState) -> Option<f64>| {
        for (source, p) in partitions {
            if let Some(value) = value(p) {
                text.line(metric, &[&source.pipeline, &source.topic, &source.partition.to_string()], value);
            }
        }
    };
    each(&names::RECORDS, &|p| Some(p.records as f64));
    each(&names::BYTES, &|p| Some(p.bytes as f64));
    each(&names::LAG, &|p| p.lag().map(|n| n as f64));
    each(&names::WATERMARK_DELAY, &|p| p.watermark().map(|w| delay_seconds(w, wall_us)));

    let mut each_of = |metric: &Definition, value: &dyn Fn(&PartitionState) -> Vec<(&'static str, f64)>| {
        for (source, p) in partitions {
            for (label, value) in value(p) {
                text.line(metric, &[&source.pipeline, &source.topic, &source.partition.to_string(), label], value);
            }
        }
    };
    each_of(&names::VERDICTS, &|p| Verdict::ALL.iter().map(|v| (v.as_str(), p.verdicts[*v as usize] as f64)).collect());
    each_of(&names::POSITION, &|p| {
        [("read", p.position()), ("bronze", p.bronze_position()), ("realtime", p.realtime_position())]
            .map(|(stage, offset)| (stage, offset as f64))
            .to_vec()
    });
    each_of(&names::PENDING, &|p| {
        [("bronze", p.bronze_position()), ("realtime", p.realtime_position())]
            .map(|(sink, offset)| (sink, (p.position() - offset).max(0) as f64))
            .to_vec()
    });
    each_of(&names::PARTITION_PHASE, &|p| {
        PartitionPhase::NAMES.iter().map(|name| (*name, flag(p.phase.as_str() == *name))).collect()
    });
}

fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}

/// Text under construction; writes a metric's HELP and TYPE before its first line.
#[derive(Default)]
struct Exposition {
    out: String,
    current: &'static str,
}

impl Exposition {
    fn line(&mut self, metric: &Definition, labels: &[&str], value: f64) {
        // Writing to a String cannot fail, so the results are of no interest.
        if self.current != metric.name {
            self.current = metric.name;
            let _ = writeln!(self.out, "# HELP {} {}", metric.name, metric.description);
            let _ = writeln!(self.out, "# TYPE {} {}", metric.name, metric.kind.as_str());
        }
        self.out.push_str(metric.name);
        for (i, (name, label)) in metric.labels.iter().zip(labels).enumerate() {
            let _ = write!(self.out, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(label));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{Acquired, ActorId, Consumed, SinkCondition};

    #[test]
    fn series_end_with_their_partition() {
        let board = Board::new();
        let source =
            Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition: 2 };
        board.acquired(
            &source,
            &Acquired {
                position: 7,
                mark: None,
                bound: Duration::ZERO,
                bronze_flush_interval: Duration::ZERO,
                realtime_flush_interval: Some(Duration::ZERO),
            },
        );
        board.consumed(&source, &Consumed { records: 3, bytes: 90, verdicts: [2, 0, 0, 1], next: 10, mark: None });
        board.end_offset(&source, 50);
        board.bronze_at(&source, 9);
        board.actor_running(&ActorId::new("bronze_writer", "a\"b"), false);
        board.sink("clickhouse", SinkCondition::Healthy);
        let text = render_board(&board, Limits::default());
        let labels = "pipeline=\"user_events\",topic=\"user-events\",partition=\"2\"";
        for line in [
            format!("boathouse_records_total{{{labels}}} 3"),
            format!("boathouse_lag_records{{{labels}}} 40"),
            format!("boathouse_verdicts_total{{{labels},verdict=\"unparsed\"}} 1"),
            format!("boathouse_pending_records{{{labels},sink=\"bronze\"}} 1"),
            format!("boathouse_pending_records{{{labels},sink=\"realtime\"}} 3"),
            "boathouse_actor_up{kind=\"bronze_writer\",actor=\"a\\\"b\"} 1".to_owned(),
            "boathouse_ready 0".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "missing: {line}\nin:\n{text}");
        }
        assert!(!text.contains("boathouse_watermark_delay_seconds"), "no event, no watermark");
        for m in names::ALL {
            assert!(text.matches(&format!("# TYPE {} ", m.name)).count() <= 1, "{} is torn apart", m.name);
        }
        board.revoked(&source);
        assert!(!render_board(&board, Limits::default()).contains("user-events"));
    }
}
