//! Bronze as the commands read it: one version of the table, its rows by partition in offset order. Plain Parquet
//! reading of its own, so that a fault in the daemon's reader or writer cannot hide itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use deltalake::kernel::LogicalFileView;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};

use crate::bronze::table_key;
use crate::cli::lake::open_delta;
use crate::config::Pipeline;
use crate::kafka::Source;
use crate::storage::{DataFile, FileAt, Place};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;

/// One version of a pipeline's Bronze table.
pub(crate) struct Snapshot {
    pub version: u64,
    pub configuration: HashMap<String, String>,
    /// Kafka's topic, and the newest generation of it.
    pub topic: String,
    pub generation: i32,
    table: deltalake::DeltaTable,
    files: Vec<Arc<FileAt>>,
    place: Place,
}

/// Where Bronze stands with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Every record below it is in Bronze.
    pub next_offset: i64,
    /// Greatest accepted event time, microseconds since the epoch.
    pub mark: Option<i64>,
}

/// When the settings in force were put in force.
pub(crate) enum EpochBegan {
    /// The table has never had others.
    WithTheTable,
    /// With this version.
    At(Box<Snapshot>),
}

impl Snapshot {
    /// The newest version; none where the table does not exist yet.
    pub async fn newest(lakehouse_uri: &str, pipeline: &Pipeline) -> anyhow::Result<Option<Self>> {
        let place = Place::of(lakehouse_uri)?.join("bronze").join(&pipeline.name);
        if !place.is_table().await? {
            return Ok(None);
        }
        Self::at(place, None).await.map(Some)
    }

    async fn at(place: Place, version: Option<u64>) -> anyhow::Result<Self> {
        let table = open_delta(&place, version).await?;
        let state = table.snapshot()?;
        let metadata = serde_json::to_value(state.metadata())?;
        let configuration: HashMap<String, String> =
            serde_json::from_value(metadata["configuration"].clone()).context("the table's configuration")?;
        let (store, io) = (table.log_store().object_store(None), tokio::runtime::Handle::current());
        let at = |f: LogicalFileView| FileAt {
            place: place.clone(),
            store: store.clone(),
            path: f.object_store_path(),
            size: f.size().max(0) as u64,
            io: io.clone(),
        };
        let files = state.log_data().iter().map(|f| Arc::new(at(f))).collect();
        let text = |key: &str| configuration.get(key).cloned();
        let topic = text(table_key::TOPIC);
        let topic = topic.with_context(|| format!("{place} was not made by Boathouse: no topic"))?;
        Ok(Self {
            version: state.version(),
            topic,
            generation: text(table_key::GENERATION).and_then(|g| g.parse().ok()).unwrap_or(0),
            configuration,
            files,
            place,
            table,
        })
    }

    /// When the settings in force were put in force; none where the log no longer says.
    pub async fn epoch_began(&self) -> anyhow::Result<Option<EpochBegan>> {
        let text = |key: &str| self.configuration.get(key).map(String::as_str).unwrap_or_default();
        let mut began = None;
        for version in (0..=self.version).rev() {
            let entry = self.table.log_store().read_commit_entry(version).await;
            let entry = entry.with_context(|| format!("log entry {version} of {} cannot be read", self.place))?;
            let Some(entry) = entry else {
                // Log cleanup has been here: what is older is known only where there was one setting all along.
                let first = text(table_key::EARLIER).is_empty() && self.generation == 0;
                return Ok(first.then_some(EpochBegan::WithTheTable));
            };
            let lines = String::from_utf8_lossy(&entry);
            let Some(line) = lines.lines().find(|line| line.starts_with("{\"metaData\"")) else { continue };
            let action: serde_json::Value = serde_json::from_str(line).context("a metaData action")?;
            if action["metaData"]["configuration"][table_key::EPOCH].as_str() != Some(text(table_key::EPOCH)) {
                break;
            }
            began = Some(version);
        }
        match began {
            None => Ok(None),
            Some(0) => Ok(Some(EpochBegan::WithTheTable)),
            Some(version) => {
                let at = Self::at(self.place.clone(), Some(version)).await?;
                Ok(Some(EpochBegan::At(Box::new(at))))
            }
        }
    }

    pub async fn position(&self, source: &Source) -> anyhow::Result<Option<Position>> {
        let state = self.table.snapshot()?;
        let log = self.table.log_store();
        let next = state.transaction_version(log.as_ref(), source.txn_id()).await?;
        let mark = state.transaction_version(log.as_ref(), source.mark_id()).await?;
        Ok(next.map(|next_offset| Position { next_offset, mark }))
    }

    /// Where each partition's rows stand.
    pub fn runs(&self, pipeline: &str) -> anyhow::Result<BTreeMap<Arc<Source>, Vec<Run>>> {
        let mut runs: BTreeMap<Arc<Source>, Vec<Run>> = BTreeMap::new();
        let mut sources: HashMap<(i32, i32), Arc<Source>> = HashMap::new();
        for file in &self.files {
            for ((generation, partition), mut found) in runs_of(file)? {
                let source = sources.entry((generation, partition)).or_insert_with(|| {
                    Arc::new(Source {
                        pipeline: pipeline.into(),
                        topic: self.topic.as_str().into(),
                        generation,
                        partition,
                    })
                });
                runs.entry(source.clone()).or_default().append(&mut found);
            }
        }
        for of_source in runs.values_mut() {
            of_source.sort_by_key(|r| (r.first, r.last));
        }
        Ok(runs)
    }
}

/// Rows of one partition in one file, with strictly increasing offsets.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    file: Arc<FileAt>,
    /// Rows of the file.
    rows: Vec<Range<usize>>,
    pub first: i64,
    pub last: i64,
    pub count: u64,
}

fn open(at: &FileAt, columns: &[&str]) -> anyhow::Result<ParquetRecordBatchReaderBuilder<DataFile>> {
    let unreadable = || format!("the data file {at} cannot be read");
    let file = at.open().with_context(unreadable)?;
    // Types by Parquet alone: a file that another program has merged must read the same.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).with_context(unreadable)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    Ok(builder.with_projection(mask).with_batch_size(BATCH_ROWS))
}

type RunsOfFile = BTreeMap<(i32, i32), Vec<Run>>;

fn runs_of(file: &Arc<FileAt>) -> anyhow::Result<RunsOfFile> {
    let mut runs = RunsOfFile::new();
    let mut row = 0;
    for batch in open(file, &["generation", "partition", "offset"])?.build()? {
        let batch = batch.with_context(|| format!("the data file {file} is damaged"))?;
        let place = |name: &str| batch.column_by_name(name).with_context(|| format!("{file} has no column {name}"));
        let generations = place("generation")?.as_primitive::<Int32Type>().values();
        let partitions = place("partition")?.as_primitive::<Int32Type>().values();
        let offsets = place("offset")?.as_primitive::<Int64Type>().values();
        let mut current: Option<((i32, i32), &mut Vec<Run>)> = None;
        for i in 0..batch.num_rows() {
            let key = (generations[i], partitions[i]);
            let of_source = match &mut current {
                Some((k, of_source)) if *k == key => of_source,
                _ => {
                    current = Some((key, runs.entry(key).or_default()));
                    let Some((_, of_source)) = &mut current else { bail!("a row without a partition") };
                    of_source
                }
            };
            match of_source.last_mut() {
                Some(run) if run.last < offsets[i] => {
                    run.last = offsets[i];
                    run.count += 1;
                    match run.rows.last_mut() {
                        Some(range) if range.end == row => range.end += 1,
                        _ => run.rows.push(row..row + 1),
                    }
                }
                // Not rising: a file that was merged, or a row that is there twice.
                _ => of_source.push(Run {
                    file: file.clone(),
                    rows: std::iter::once(row..row + 1).collect(),
                    first: offsets[i],
                    last: offsets[i],
                    count: 1,
                }),
            }
            row += 1;
        }
    }
    Ok(runs)
}

/// A partition's rows in offset order, runs that overlap merged. Memory: one batch for each run that overlaps.
pub(crate) struct Rows {
    columns: Vec<String>,
    waiting: VecDeque<Run>,
    open: Vec<Cursor>,
}

struct Cursor {
    reader: ParquetRecordBatchReader,
    file: Arc<FileAt>,
    batch: RecordBatch,
    at: usize,
}

impl Cursor {
    fn offsets(&self) -> &[i64] {
        // Every file has the column; a batch without it would not have got this far.
        self.batch.column_by_name("offset").map_or(&[], |c| c.as_primitive::<Int64Type>().values())
    }

    fn head(&self) -> i64 {
        self.offsets().get(self.at).copied().unwrap_or(i64::MAX)
    }

    /// Moves to the next batch if this one is used up; false at the end.
    fn fill(&mut self) -> anyhow::Result<bool> {
        while self.at >= self.batch.num_rows() {
            match self.reader.next() {
                None => return Ok(false),
                Some(batch) => {
                    self.batch = batch.with_context(|| format!("the data file {} is damaged", self.file))?;
                    self.at = 0;
                }
            }
        }
        Ok(true)
    }
}

impl Rows {
    /// `columns` beside `offset`.
    pub fn new(runs: Vec<Run>, columns: &[&str]) -> Self {
        let columns = columns.iter().copied().chain(["offset"]).map(String::from).collect();
        Self { columns, waiting: runs.into(), open: Vec::new() }
    }

    /// The next rows, in offset order; none at the end. An offset that is there twice comes twice.
    pub fn next(&mut self) -> anyhow::Result<Option<RecordBatch>> {
        loop {
            let least = self.open.iter().map(Cursor::head).min();
            match self.waiting.front() {
                Some(run) if least.is_none_or(|least| run.first <= least) => {
                    if let Some(run) = self.waiting.pop_front() {
                        let cursor = self.start(run)?;
                        self.open.extend(cursor);
                    }
                }
                _ => break,
            }
        }
        let Some(index) = (0..self.open.len()).min_by_key(|i| self.open[*i].head()) else { return Ok(None) };
        let others = self.open.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, c)| c.head());
        let bound = others.chain(self.waiting.front().map(|r| r.first)).min().unwrap_or(i64::MAX);
        let cursor = &mut self.open[index];
        let n = cursor.offsets()[cursor.at..].partition_point(|offset| *offset <= bound).max(1);
        let rows = cursor.batch.slice(cursor.at, n);
        cursor.at += n;
        if !cursor.fill()? {
            self.open.swap_remove(index);
        }
        Ok(Some(rows))
    }

    fn start(&self, run: Run) -> anyhow::Result<Option<Cursor>> {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let builder = open(&run.file, &columns)?;
        let total = builder.metadata().file_metadata().num_rows() as usize;
        let whole = matches!(&run.rows[..], [range] if *range == (0..total));
        let builder = if whole { builder } else { builder.with_row_selection(selection(&run.rows, total)) };
        let empty = RecordBatch::new_empty(builder.schema().clone());
        let mut cursor = Cursor { reader: builder.build()?, file: run.file, batch: empty, at: 0 };
        Ok(cursor.fill()?.then_some(cursor))
    }
}

fn selection(rows: &[Range<usize>], total: usize) -> RowSelection {
    let mut selectors = Vec::new();
    let mut at = 0;
    for range in rows {
        selectors.push(RowSelector::skip(range.start - at));
        selectors.push(RowSelector::select(range.len()));
        at = range.end;
    }
    selectors.push(RowSelector::skip(total - at));
    RowSelection::from(selectors)
}
