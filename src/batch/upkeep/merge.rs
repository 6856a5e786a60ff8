//! Merging small files: rows move, none changes. Every commit says so (`dataChange` false), so that neither Bronze's
//! writer nor a batch run takes it for anything else.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use deltalake::DeltaTableError;
use deltalake::kernel::Action;
use futures::TryStreamExt;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::commit::{Planned, commit};
use super::plan::{Candidate, merges};
use crate::batch::changes::decoded;
use crate::batch::gold::partition_date;
use crate::batch::output::{Layout, PartitionWriter};
use crate::batch::scan::DataFile;
use crate::batch::target::Landing;
use crate::batch::{BatchError, Lake, Layer, TaskContext, silver};
use crate::bronze::{EntryWriter, PARTITION_COLUMN, SINGLE_SOURCE_PREFIX};
use crate::config::Pipeline;
use crate::failpoint;

/// Newest protocol whose tables are merged: no features that a file could depend on.
const READER_MAX: i64 = 1;
const WRITER_MAX: i64 = 2;

/// How much is merged, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Merging {
    /// Bytes of a merged file, about; at most what is held of it in memory.
    pub target: u64,
    /// What is over is told from this moment.
    pub now: DateTime<Utc>,
    /// No further file is begun after this long: whoever waits for the table's pipeline is not kept waiting.
    pub time: Duration,
}

/// What merging has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    pub files_before: u64,
    pub files_after: u64,
    pub rows: u64,
    /// Why not all was done that could be; none where it was.
    pub left: Option<String>,
}

/// Merges a table's small files of closed hours and dates, one commit a merged file.
pub async fn merge(
    lake: &Lake,
    layer: Layer,
    name: &str,
    pipeline: Option<&Pipeline>,
    merging: Merging,
    context: &TaskContext,
) -> Result<Merged, BatchError> {
    let begun = Instant::now();
    let mut merged = Merged::default();
    let Some(found) = Found::load(lake, layer, name).await? else { return Ok(merged) };
    if let Some(left) = found.unsupported() {
        merged.left = Some(left);
        return Ok(merged);
    }
    let target = merging.target.min(lake.memory() as u64 / 4);
    let plan = merges(&found.candidates(), target, merging.now);
    for (number, group) in plan.iter().enumerate() {
        context.check()?;
        if begun.elapsed() > merging.time {
            merged.left = Some(format!("{} more files could be merged; the next upkeep goes on", plan.len() - number));
            break;
        }
        let group: Vec<&MergeFile> = group.iter().map(|i| &found.files[*i]).collect();
        match found.merge(&group, pipeline, context).await? {
            Outcome::Merged { rows, files } => {
                merged.files_before += group.len() as u64;
                merged.files_after += files;
                merged.rows += rows;
            }
            Outcome::Left(why) => merged.left = Some(why),
        }
    }
    Ok(merged)
}

enum Outcome {
    Merged {
        rows: u64,
        files: u64,
    },
    /// Nothing was changed, for this reason.
    Left(String),
}

/// A table as merging sees it.
struct Found {
    planned: Planned,
    layer: Layer,
    /// The columns of its data files.
    schema: SchemaRef,
    protocol: (i64, i64),
    files: Vec<MergeFile>,
}

/// A data file that may be merged.
struct MergeFile {
    path: String,
    size: u64,
    rows: Option<u64>,
    partition: BTreeMap<String, Option<String>>,
    stats: Value,
    modified_ms: i64,
    /// The action that takes it out, with nothing changed.
    remove: Value,
}

impl MergeFile {
    fn range(&self, column: &str) -> Option<(i64, i64)> {
        Some((self.stats["minValues"][column].as_i64()?, self.stats["maxValues"][column].as_i64()?))
    }

    fn moment(&self, bound: &str, column: &str) -> Option<DateTime<Utc>> {
        self.stats[bound][column].as_str()?.parse().ok()
    }

    /// (generation, partition, first and last offset) where its name says that all its rows are of one Kafka partition,
    /// in offset order.
    fn single_source(&self) -> Option<(i64, i64, (i64, i64))> {
        let name = self.path.rsplit('/').next()?;
        if !name.starts_with(SINGLE_SOURCE_PREFIX) {
            return None;
        }
        let one = |column: &str| self.range(column).filter(|(a, b)| a == b).map(|(a, _)| a);
        Some((one("generation")?, one("partition")?, self.range("offset")?))
    }
}

impl Found {
    async fn load(lake: &Lake, layer: Layer, name: &str) -> Result<Option<Self>, BatchError> {
        let at = Instant::now();
        let Some(table) = lake.open(layer, name).await? else { return Ok(None) };
        let shown = format!("{layer}.{name}");
        let failed = |e: DeltaTableError| BatchError::unavailable(format!("table {shown} cannot be read"), e);
        let bad_json = |e: serde_json::Error| BatchError::unavailable(format!("table {shown} cannot be read"), e);
        let state = table.snapshot().map_err(failed)?;
        let partition_columns: Vec<String> = state.metadata().partition_columns().to_vec();
        let columns = state.snapshot().arrow_schema();
        let of_files = columns.fields().iter().filter(|f| !partition_columns.contains(f.name()));
        let schema = Arc::new(Schema::new(of_files.map(|f| Field::clone(f)).collect::<Vec<_>>()));
        let protocol = serde_json::to_value(state.protocol()).map_err(bad_json)?;
        let mut files = Vec::new();
        for file in state.log_data().iter() {
            let remove = serde_json::to_value(Action::Remove(file.remove_action(false))).map_err(bad_json)?;
            files.push(MergeFile {
                path: file.object_store_path().to_string(),
                size: file.size() as u64,
                rows: file.num_records().map(|n| n as u64),
                partition: file.partition_values_map().into_iter().collect(),
                stats: file.stats().and_then(|s| serde_json::from_str(&s).ok()).unwrap_or_default(),
                modified_ms: file.modification_time(),
                remove,
            });
        }
        let planned = Planned { store: table.log_store(), name: shown, version: state.version(), at };
        let number = |name: &str| protocol[name].as_i64().unwrap_or(i64::MAX);
        let protocol = (number("minReaderVersion"), number("minWriterVersion"));
        Ok(Some(Self { planned, layer, schema, protocol, files }))
    }

    fn unsupported(&self) -> Option<String> {
        let (reader, writer) = self.protocol;
        let asks = || format!("the table asks for Delta reader {reader} and writer {writer}; it is left as it is");
        (reader > READER_MAX || writer > WRITER_MAX).then(asks)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |file: &MergeFile| {
            let oldest =
                file.moment("minValues", "ingestion_time").map_or(file.modified_ms * 1000, |t| t.timestamp_micros());
            Candidate {
                partition: format!("{:?}", file.partition),
                written_on: partition_date(file.partition.get(PARTITION_COLUMN)),
                newest_row: file.moment("maxValues", "ingestion_time"),
                order: (oldest, file.modified_ms, file.path.clone()),
                size: file.size,
            }
        };
        self.files.iter().map(candidate).collect()
    }

    /// Writes the rows of a group to a file of their own, then commits it in their place.
    async fn merge(
        &self,
        group: &[&MergeFile],
        pipeline: Option<&Pipeline>,
        context: &TaskContext,
    ) -> Result<Outcome, BatchError> {
        let (group, prefix) = in_order(group);
        let properties = match (pipeline, self.layer) {
            (Some(pipeline), Layer::Bronze) => silver::searchable(pipeline),
            (Some(pipeline), Layer::Silver) => silver::file_properties(pipeline),
            _ => Arc::new(properties()),
        };
        let layout = Layout { store: self.planned.store.clone(), schema: self.schema.clone(), properties };
        let mut writer = PartitionWriter::moving(layout, &group[0].path, &group[0].partition, prefix);
        let mut expected = 0;
        for file in &group {
            context.check()?;
            let data =
                DataFile { store: self.planned.store.object_store(None), path: file.path.clone(), size: file.size };
            let open = data.open().await?;
            if let Some(column) = open.columns().find(|c| self.schema.field_with_name(c).is_err()) {
                // It was dropped from the table, and may come back with what it held.
                let why = format!("{} has a column `{column}` that the table has not; it is left as it is", file.path);
                return Ok(Outcome::Left(why));
            }
            if file.rows.is_some_and(|rows| rows != open.rows as u64) {
                return Err(BatchError::refused(
                    format!("file {} of {} is not what the log says", file.path, self.planned.name),
                    format!("it has {} rows, its statistics say {:?}", open.rows, file.rows.unwrap_or_default()),
                    "it is left as it is; `boathouse reconcile` tells whether rows are missing",
                ));
            }
            expected += open.rows as u64;
            let mut batches = open.batches(&self.schema, None)?;
            while let Some(batch) = batches.try_next().await? {
                writer.write(&batch).await?;
            }
        }
        let added = writer.finish().await?;
        if writer.rows != expected {
            return Err(BatchError::unavailable(
                format!("files of {} cannot be merged", self.planned.name),
                format!("{} rows were read of {expected}", writer.rows),
            ));
        }
        let files = added.len() as u64;
        let id = Uuid::new_v4().to_string();
        let parameters = json!({"rows": expected.to_string(), "files": group.len().to_string()});
        let mut entry = EntryWriter::new("OPTIMIZE", parameters, false, &id, Utc::now().timestamp_millis());
        group.iter().for_each(|file| entry.action(file.remove.clone()));
        added.into_iter().for_each(|add| entry.action(add));
        let removed: HashSet<String> = group.iter().map(|file| decoded(&file.path)).collect();
        failpoint::hit("upkeep.before_merge_commit");
        let landing = commit(&self.planned, entry.finish(), &removed).await?;
        failpoint::hit("upkeep.after_merge_commit");
        Ok(match landing {
            Landing::Landed(_) => Outcome::Merged { rows: expected, files },
            Landing::Overtaken => Outcome::Left("somebody else has changed the table meanwhile; later again".into()),
        })
    }
}

/// The files in the order of their rows, and how the merged file is named: rows of one Kafka partition stay what they
/// are, in offset order.
fn in_order<'a>(group: &[&'a MergeFile]) -> (Vec<&'a MergeFile>, &'static str) {
    let mut group = group.to_vec();
    let sources: Option<Vec<_>> = group.iter().map(|file| file.single_source()).collect();
    let Some(sources) = sources else { return (group, "merged-") };
    let one =
        sources.iter().all(|(generation, partition, _)| (*generation, *partition) == (sources[0].0, sources[0].1));
    group.sort_by_key(|file| file.range("offset"));
    let apart = group.windows(2).all(|pair| {
        let (before, after) = (pair[0].range("offset"), pair[1].range("offset"));
        matches!((before, after), (Some((_, last)), Some((first, _))) if last < first)
    });
    (group, if one && apart { SINGLE_SOURCE_PREFIX } else { "merged-" })
}

/// How files of tables are written whose columns nobody has measured.
fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by(concat!("boathouse ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(Default::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build()
}
