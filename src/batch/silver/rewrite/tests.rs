//! From files of Bronze and of silver to silver's new files, held against a model.

use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::array::{Int32Array, Int64Array};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::super::columns::{refused_schema, silver_schema};
use super::super::judge::{RefusedWriter, SourceFile, judge};
use super::super::properties::properties;
use super::super::reasons::Rules;
use super::super::testing::pipeline;
use super::*;
use crate::batch::{Lake, Layer};

const HOUR_MICROS: i64 = 3_600_000_000;
const FIRST_HOUR: i64 = 490_000;

/// An event's row: (id, hour, Kafka timestamp, partition, offset).
type Row = (u8, i64, Option<i64>, i32, i64);

fn rank(row: &Row) -> (i64, i32, i64) {
    (row.2.unwrap_or(i64::MAX), row.3, row.4)
}

fn batch(rows: &[Row]) -> RecordBatch {
    let schema = silver_schema(&pipeline());
    let text =
        |of: &dyn Fn(&Row) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "generation" => Arc::new(Int32Array::from(vec![0; rows.len()])),
            "partition" => Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.3))),
            "offset" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.4))),
            "user_id" => Arc::new(Int64Array::from(vec![7; rows.len()])),
            "kafka_timestamp" => {
                Arc::new(rows.iter().map(|r| r.2).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            "event_time" => {
                let times = rows.iter().map(|r| (FIRST_HOUR + r.1) * HOUR_MICROS + r.4);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            "event_id" => text(&|r| format!("event {}", r.0)),
            "event_type" => text(&|_| "click".into()),
            "source" => text(&|_| "web".into()),
            "time_status" => text(&|_| "ok".into()),
            "ingestion_time" => new_null_array(field.data_type(), rows.len()),
            _ => text(&|_| "/".into()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

/// Files of rows, and a lakehouse that they are in.
struct World {
    lake: Lake,
    layout: Layout,
    context: TaskContext,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("lakehouse");
        let lake = Lake::at(uri.to_str().unwrap(), 64 << 20, folder.path().join("spill")).unwrap();
        let store = lake.log_store(Layer::Silver, "user_events").unwrap();
        let layout = Layout { store, schema: silver_schema(&pipeline()), properties: properties(&pipeline()) };
        Self { lake, layout, context: TaskContext::detached(), _folder: folder }
    }

    fn file(&self, add: &Value) -> DataFile {
        let (path, size) = (add["add"]["path"].as_str().unwrap().into(), add["add"]["size"].as_u64().unwrap());
        DataFile { store: self.layout.store.object_store(None), path, size }
    }

    async fn bronze(&self, rows: &[Row]) -> SourceFile {
        let mut writer = PartitionWriter::new(self.layout.clone(), vec![("ingestion_date", "2026-02-06".into())]);
        writer.write(&batch(rows)).await.unwrap();
        let file = self.file(&writer.finish().await.unwrap()[0]);
        let ingestion_date = "2026-02-06".into();
        SourceFile { file, ingestion_date, event_times: None, for_silver: true, for_refused: false }
    }

    async fn silver(&self, hour: i64, rows: &[Row]) -> (Hour, TableFile) {
        let mut writer = PartitionWriter::new(self.layout.clone(), vec![(EVENT_HOUR, hour.to_string())]);
        writer.write(&batch(rows)).await.unwrap();
        let DataFile { path, size, .. } = self.file(&writer.finish().await.unwrap()[0]);
        let file = TableFile { path, size, rows: rows.len() as u64, partition: BTreeMap::new(), remove: Value::Null };
        (Hour(FIRST_HOUR + hour), file)
    }

    /// Offsets of a file's rows.
    async fn offsets(&self, add: &Value) -> Vec<i64> {
        let mut batches = self.file(add).open().await.unwrap().batches(&self.layout.schema, None).unwrap();
        let mut offsets = Vec::new();
        while let Some(batch) = batches.try_next().await.unwrap() {
            offsets.extend(batch["offset"].as_primitive::<Int64Type>().values());
        }
        offsets
    }
}

/// What is given, and how closely it is looked at.
#[derive(Debug, Clone)]
struct Case {
    held: Vec<Row>,
    files: Vec<Vec<Row>>,
    bits: u32,
    judge_memory: usize,
    memory: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let row = (0..6u8, 0..3i64, proptest::option::of(0..3i64), 0..2i32);
    let rows = || proptest::collection::vec(row.clone(), 1..30);
    let inputs = (rows(), proptest::collection::vec(rows(), 1..4));
    let bits = prop_oneof![Just(0), Just(2), Just(43)];
    let judge_memory = prop_oneof![Just(0), Just(200), Just(1 << 20)];
    let memory = prop_oneof![Just(0), Just(400), Just(1 << 20)];
    (inputs, bits, judge_memory, memory).prop_map(|((held, files), bits, judge_memory, memory)| {
        let mut offset = 0;
        let mut place = |rows: Vec<(u8, i64, Option<i64>, i32)>| -> Vec<Row> {
            let row = |(id, hour, at, partition)| {
                offset += 1;
                (id, hour, at, partition, offset)
            };
            rows.into_iter().map(row).collect()
        };
        // Silver has no copies.
        let held = stay(&[place(held)]).into_values().collect();
        Case { held, files: files.into_iter().map(&mut place).collect(), bits, judge_memory, memory }
    })
}

/// Of each event in each hour the row that stays.
fn stay(files: &[Vec<Row>]) -> BTreeMap<(u8, i64), Row> {
    let mut stay: BTreeMap<(u8, i64), Row> = BTreeMap::new();
    for row in files.iter().flatten() {
        let kept = stay.entry((row.0, row.1)).or_insert(*row);
        if rank(row) < rank(kept) {
            *kept = *row;
        }
    }
    stay
}

async fn check(case: &Case) {
    let world = World::new();
    let rules = Rules::compile(&SessionContext::new(), &pipeline(), &[]).unwrap();
    let fingerprints = Fingerprints::of(&pipeline()).unwrap().colliding(case.bits);
    let mut files = Vec::new();
    for rows in &case.files {
        files.push(world.bronze(rows).await);
    }
    let mut held = Vec::new();
    for hour in 0..3 {
        let rows: Vec<Row> = case.held.iter().filter(|row| row.1 == hour).copied().collect();
        if !rows.is_empty() {
            held.push(world.silver(hour, &rows).await);
        }
    }
    let layout = Layout { schema: refused_schema(&pipeline()), ..world.layout.clone() };
    let mut refused = RefusedWriter::new(layout, &pipeline());
    let judged = judge(&files, &rules, &fingerprints, case.judge_memory, &mut refused, &world.context).await.unwrap();
    let held: Vec<(Hour, &TableFile)> =
        held.iter().map(|(hour, file)| (*hour, file)).filter(|(hour, _)| judged.hours.contains_key(hour)).collect();
    let rewriter = Rewriter::new(world.layout.clone(), &fingerprints, case.memory, &world.context);
    let rewritten = rewriter.rewrite(&judged.hours, &judged.files, &held).await.unwrap();

    let all: Vec<Vec<Row>> = std::iter::once(&case.held).chain(&case.files).cloned().collect();
    let winners: BTreeSet<i64> = stay(&all).into_values().map(|row| row.4).collect();
    let new = |offset: &i64| case.files.iter().flatten().any(|row| row.4 == *offset);
    let changed: BTreeSet<Hour> = case
        .files
        .iter()
        .flatten()
        .filter(|row| winners.contains(&row.4))
        .map(|row| Hour(FIRST_HOUR + row.1))
        .collect();
    assert_eq!(rewritten.hours, changed);
    let mut found: Vec<i64> = Vec::new();
    for add in &rewritten.added {
        found.extend(world.offsets(add).await);
    }
    found.extend(case.held.iter().filter(|row| !changed.contains(&Hour(FIRST_HOUR + row.1))).map(|row| row.4));
    found.sort_unstable();
    assert_eq!(found, winners.iter().copied().collect::<Vec<_>>());
    let touched: u64 = held.iter().map(|(_, file)| file.rows).sum();
    let rows = case.files.iter().map(Vec::len).sum::<usize>() as u64 + touched;
    let kept = winners.iter().filter(|offset| {
        new(offset)
            || case
                .held
                .iter()
                .any(|row| row.4 == **offset && held.iter().any(|(hour, _)| *hour == Hour(FIRST_HOUR + row.1)))
    });
    assert_eq!(rewritten.duplicates, rows - kept.count() as u64);

    // The same rows are counted where nothing is held.
    let counted = rewriter.count(&judged.hours, &judged.files).await.unwrap();
    let alone = stay(&case.files).len() as u64;
    assert_eq!(counted.values().sum::<u64>(), alone);
    drop(world.lake);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is new and held, however many events share a fingerprint, and however little memory there is: of each
    /// event in each hour the least copy stays, once, and hours without a new row that stays are left alone.
    #[test]
    fn silver_is_what_it_was_with_the_new_rows_without_copies(case in case()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(&case));
    }
}
