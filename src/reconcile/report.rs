//! What `reconcile` found, for people and for programs.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::lake::Layers;
use super::layers::{self, LayerVerdict};
use crate::cli::output::{Grid, count};

/// Differences that are shown of each check.
const SAMPLES: usize = 5;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Same,
    Different,
    /// There is nothing to compare until the batch has run.
    NotYetRun,
    /// There was nothing to compare with, or it could not be read.
    NotChecked,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Same => "same",
            Verdict::Different => "different",
            Verdict::NotYetRun => "not_yet_run",
            Verdict::NotChecked => "not_checked",
        }
    }

    /// In words; a difference stands out.
    pub fn shown(self) -> &'static str {
        match self {
            Verdict::Same => "same",
            Verdict::Different => "DIFFERENT",
            Verdict::NotYetRun => "not yet run",
            Verdict::NotChecked => "not checked",
        }
    }
}

/// One record that differs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Difference {
    pub offset: i64,
    /// `lost`, `duplicated`, `not in kafka`, or the column that differs.
    pub what: String,
    pub kafka: String,
    pub bronze: String,
}

/// What was counted while comparing a partition.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Tally {
    /// Records of Kafka that were looked for in Bronze.
    #[serde(rename = "checked_records")]
    pub checked: u64,
    /// Records that Bronze does not have.
    #[serde(rename = "lost_records")]
    pub lost: u64,
    /// Rows of Bronze that are there once more than they should.
    #[serde(rename = "duplicated_rows")]
    pub duplicated: u64,
    /// Rows of Bronze that Kafka does not have, or that lie beyond Bronze's own position.
    #[serde(rename = "unknown_rows")]
    pub unknown: u64,
    /// Rows that are not what Kafka has.
    #[serde(rename = "differing_rows")]
    pub differing: u64,
    #[serde(rename = "samples")]
    samples: Vec<Difference>,
}

impl Tally {
    pub fn sample(&mut self, difference: Difference) {
        if self.samples.len() < SAMPLES {
            self.samples.push(difference);
        }
    }

    pub fn samples(&self) -> &[Difference] {
        &self.samples
    }

    pub fn differs(&self) -> bool {
        self.lost + self.duplicated + self.unknown + self.differing > 0
    }
}

/// Kafka = Bronze, for one partition.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BronzeCheck {
    pub pipeline: String,
    pub topic: String,
    pub generation: i32,
    pub partition: i32,
    /// Version of the Bronze table that was read.
    pub bronze_version: u64,
    /// Compared offsets, the end exclusive.
    pub from_offset: i64,
    pub to_offset: i64,
    /// Records in Kafka behind Bronze's position, not yet due.
    pub lag_records: i64,
    /// Rows of Bronze whose records Kafka no longer has.
    pub unchecked_rows: u64,
    #[serde(flatten)]
    pub tally: Tally,
    pub verdict: Verdict,
    pub notes: Vec<String>,
}

/// A row of a view that differs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WindowDifference {
    pub window_start: String,
    pub dimensions: Vec<String>,
    /// None where the row is missing.
    pub bronze_count: Option<u64>,
    pub realtime_count: Option<u64>,
}

impl fmt::Display for WindowDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |count: Option<u64>| count.map_or_else(|| "nothing".into(), self::count);
        let (bronze, realtime) = (shown(self.bronze_count), shown(self.realtime_count));
        write!(f, "{} [{}]: Bronze {bronze}, realtime {realtime}", self.window_start, self.dimensions.join(", "))
    }
}

/// Realtime = Bronze, for one aggregate.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RealtimeCheck {
    pub pipeline: String,
    pub aggregate: String,
    /// First window compared, none without a limit.
    pub from: Option<String>,
    /// Windows that end at or before this are compared; none: all of them.
    pub through: Option<String>,
    #[serde(rename = "checked_rows")]
    pub checked: u64,
    /// Events in the rows compared.
    #[serde(rename = "checked_events")]
    pub events: u64,
    #[serde(rename = "missing_rows")]
    pub missing: u64,
    #[serde(rename = "unknown_rows")]
    pub unknown: u64,
    #[serde(rename = "differing_rows")]
    pub differing: u64,
    samples: Vec<WindowDifference>,
    pub verdict: Verdict,
    pub notes: Vec<String>,
}

impl RealtimeCheck {
    pub fn new(pipeline: &str, aggregate: &str) -> Self {
        Self {
            pipeline: pipeline.to_string(),
            aggregate: aggregate.to_string(),
            from: None,
            through: None,
            checked: 0,
            events: 0,
            missing: 0,
            unknown: 0,
            differing: 0,
            samples: Vec::new(),
            verdict: Verdict::Same,
            notes: Vec::new(),
        }
    }

    pub fn sample(&mut self, difference: WindowDifference) {
        if self.samples.len() < SAMPLES {
            self.samples.push(difference);
        }
    }

    pub fn samples(&self) -> &[WindowDifference] {
        &self.samples
    }

    /// Ends the check without a comparison.
    pub fn not_checked(mut self, why: impl Into<String>) -> Self {
        self.verdict = Verdict::NotChecked;
        self.notes.push(why.into());
        self
    }
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub verdict: Verdict,
    /// One line a layer.
    pub layers: Vec<LayerVerdict>,
    pub bronze: Vec<BronzeCheck>,
    pub realtime: Vec<RealtimeCheck>,
    #[serde(flatten)]
    pub batch: Layers,
    pub elapsed_seconds: f64,
}

impl Report {
    /// The worst verdict; nothing at all is no proof of anything.
    pub fn conclude(&mut self) {
        self.layers = layers::verdicts(self);
        self.verdict = layers::worst(self.layers.iter().map(|l| l.verdict)).unwrap_or(Verdict::NotChecked);
    }

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if !self.bronze.is_empty() {
            writeln!(out, "Kafka = Bronze")?;
            self.bronze_grid().write(out)?;
            let samples = self.bronze.iter().flat_map(|c| c.tally.samples.iter().map(move |s| (c, s)));
            for (check, s) in samples {
                writeln!(
                    out,
                    "  {}/{} offset {}: {}: Kafka {}, Bronze {}",
                    check.topic, check.partition, s.offset, s.what, s.kafka, s.bronze
                )?;
            }
            for check in &self.bronze {
                for note in &check.notes {
                    writeln!(out, "  {}/{}: {note}", check.topic, check.partition)?;
                }
            }
            writeln!(out)?;
        }
        if !self.realtime.is_empty() {
            writeln!(out, "Realtime = Bronze recounted")?;
            self.realtime_grid().write(out)?;
            for check in &self.realtime {
                for s in &check.samples {
                    writeln!(out, "  {} {s}", check.aggregate)?;
                }
                for note in &check.notes {
                    writeln!(out, "  {}: {note}", check.aggregate)?;
                }
            }
            writeln!(out)?;
        }
        layers::write(self, out)
    }

    fn bronze_grid(&self) -> Grid {
        let header =
            ["topic", "partition", "offsets", "checked", "lost", "duplicated", "unknown", "differing", "verdict"];
        let mut grid = Grid::new(&header);
        for c in &self.bronze {
            let t = &c.tally;
            grid.row([
                if c.generation == 0 { c.topic.clone() } else { format!("{} (generation {})", c.topic, c.generation) },
                c.partition.to_string(),
                format!("{}–{}", c.from_offset, c.to_offset),
                count(t.checked),
                count(t.lost),
                count(t.duplicated),
                count(t.unknown),
                count(t.differing),
                c.verdict.shown().to_string(),
            ]);
        }
        grid
    }

    fn realtime_grid(&self) -> Grid {
        let mut grid = Grid::new(&["view", "through", "rows", "events", "missing", "unknown", "differing", "verdict"]);
        for c in &self.realtime {
            grid.row([
                format!("realtime.{}", c.aggregate),
                c.through.clone().unwrap_or_else(|| "everything".into()),
                count(c.checked),
                count(c.events),
                count(c.missing),
                count(c.unknown),
                count(c.differing),
                c.verdict.shown().to_string(),
            ]);
        }
        grid
    }
}
