//! Rows dealt out into parts that each fit into memory: a sort that spills beside another starves it of the memory that
//! it needs to merge, however much there is.
//!
//! A side is read once. Its rows go to as many files of the spill folder as there are parts, by a hash of some columns:
//! rows of the same values are in the same part, whichever side they are of. So what is compared is each row with its
//! partner, value by value; the hash decides only where they meet.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::common::config::SpillCompression;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use datafusion::execution::spill_file::SpillFile;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::spill::SpillManager;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::DataFrame;
use futures::{StreamExt, stream};

use super::super::gold::{conform, nullable};
use super::super::{BatchError, Lake};
use super::sql::Side;

/// Bytes that a row is taken to need while it is sorted.
const ROW_BYTES: usize = 512;
/// Parts of a side at most: each has a file that is open while rows are dealt out.
const PARTS_MAX: u64 = 128;
/// Rows in hand while they are dealt out: with fewer, those of a part would be written one by one.
const IN_HAND_MAX: u64 = 128 << 10;

/// Rows that may be sorted at once.
pub fn rows_max(lake: &Lake) -> u64 {
    (lake.memory() / ROW_BYTES).max(1000) as u64
}

/// How the rows of two sides are cut into parts.
pub struct Deal<'a> {
    lake: &'a Lake,
    by: &'a [&'a str],
    parts: u64,
    hash: QualityRandomState,
}

impl<'a> Deal<'a> {
    /// About so many rows a side, that are the same where the columns `by` are; without columns all are of one part.
    pub fn of(lake: &'a Lake, rows: u64, by: &'a [&'a str]) -> Self {
        let parts = if by.is_empty() { 1 } else { parts(rows, rows_max(lake)) };
        Self { lake, by, parts, hash: QualityRandomState::with_seed(rand::random()) }
    }

    /// The parts of one side, in the columns of a schema; a side that is one part is left as it is.
    async fn parts(&self, frame: DataFrame, schema: &SchemaRef, what: &str) -> Result<Vec<DataFrame>, BatchError> {
        if self.parts == 1 {
            return Ok(vec![frame]);
        }
        let failed = |e: DataFusionError| BatchError::engine(format!("the rows of {what} cannot be read"), &e);
        self.dealt(frame, schema).await.map_err(failed)
    }

    /// The parts of both sides, each with its partner.
    pub async fn pairs(
        &self,
        expected: Side<'_>,
        found: Side<'_>,
        schema: &SchemaRef,
    ) -> Result<Vec<(DataFrame, DataFrame)>, BatchError> {
        let expected = self.parts(expected.0, schema, expected.1).await?;
        let found = self.parts(found.0, schema, found.1).await?;
        Ok(expected.into_iter().zip(found).collect())
    }

    async fn dealt(&self, frame: DataFrame, schema: &SchemaRef) -> Result<Vec<DataFrame>, DataFusionError> {
        let session = self.lake.session();
        let schema = Arc::new(nullable(schema));
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let spill = SpillManager::new(session.runtime_env(), metrics, schema.clone())
            .with_compression_type(SpillCompression::Lz4Frame);
        let open = (0..self.parts).map(|_| spill.create_in_progress_file("rows are dealt out to be compared"));
        let mut files = open.collect::<Result<Vec<_>, _>>()?;
        let in_hand_max = (rows_max(self.lake) / 8).clamp(1, IN_HAND_MAX) as usize;
        let mut rows = frame.execute_stream().await?;
        let (mut in_hand, mut count) = (Vec::new(), 0);
        loop {
            let batch = rows.next().await.transpose()?;
            let ended = batch.is_none();
            if let Some(batch) = batch.filter(|batch| batch.num_rows() > 0) {
                count += batch.num_rows();
                in_hand.push(conform(&batch, &schema)?);
            }
            if count >= in_hand_max || ended && count > 0 {
                for (part, rows) in self.apart(&in_hand)? {
                    files[part].append_batch(&rows)?;
                }
                in_hand.clear();
                count = 0;
            }
            if ended {
                break;
            }
        }
        let spill = Arc::new(spill);
        let frames = files.into_iter().map(|mut file| {
            let rows = DealtRows { file: file.finish()?, spill: spill.clone(), schema: schema.clone() };
            session.read_table(Arc::new(StreamingTable::try_new(schema.clone(), vec![Arc::new(rows)])?))
        });
        frames.collect()
    }

    /// The rows of some batches, apart for each part that has any.
    fn apart(&self, batches: &[RecordBatch]) -> Result<Vec<(usize, RecordBatch)>, DataFusionError> {
        let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.parts as usize];
        let mut hashes = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let columns = self.by.iter().map(|name| {
                let column = batch.column_by_name(name);
                column.ok_or_else(|| DataFusionError::Internal(format!("there is no column {name}")))
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            hashes.clear();
            hashes.resize(batch.num_rows(), 0);
            create_hashes(columns, &self.hash, &mut hashes)?;
            for (row, hash) in hashes.iter().enumerate() {
                places[(hash % self.parts) as usize].push((number, row));
            }
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let taken = places.iter().enumerate().filter(|(_, places)| !places.is_empty());
        taken.map(|(part, places)| Ok((part, interleave_record_batch(&batches, places)?))).collect()
    }
}

/// The parts into which so many rows are cut.
fn parts(rows: u64, rows_max: u64) -> u64 {
    // Half of what fits: parts are not equally large, and both sides are sorted at the same time.
    if rows <= rows_max { 1 } else { rows.div_ceil((rows_max / 2).max(1)).min(PARTS_MAX) }
}

/// The rows of one side that are of one part; their file goes with the last that holds them.
struct DealtRows {
    /// None where there are no rows.
    file: Option<Arc<dyn SpillFile>>,
    spill: Arc<SpillManager>,
    schema: SchemaRef,
}

impl fmt::Debug for DealtRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DealtRows").finish_non_exhaustive()
    }
}

impl PartitionStream for DealtRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let none = || RecordBatchStreamAdapter::new(self.schema.clone(), stream::empty());
        let Some(file) = &self.file else { return Box::pin(none()) };
        match self.spill.read_spill_as_stream(file.clone(), None) {
            Ok(rows) => rows,
            Err(e) => Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter([Err(e)]))),
        }
    }
}

/// Those of the columns whose values are the same wherever they were computed: no instants, no fractions.
pub fn plain<'a>(columns: &[&'a str], schema: &SchemaRef) -> Vec<&'a str> {
    let is_plain = |name: &&str| {
        let kind = schema.field_with_name(name).map(|f| f.data_type());
        kind.is_ok_and(|kind| kind.is_integer() || matches!(kind, DataType::Utf8 | DataType::Date32))
    };
    columns.iter().copied().filter(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, AsArray, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    use super::*;

    const MEMORY: usize = ROW_BYTES * 1000;

    fn ids() -> impl Iterator<Item = Option<String>> {
        (0..10_000).map(|n| (n % 7 != 0).then(|| format!("event-{}", n / 2)))
    }

    fn numbers() -> Arc<Int64Array> {
        Arc::new(Int64Array::from_iter_values((0..10_000).map(|n| n / 2)))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_row_is_in_one_part_and_the_same_values_of_both_sides_in_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap(), MEMORY, folder.path().join("spill")).unwrap();
        // One side has its texts as views.
        let sides = [
            RecordBatch::try_from_iter([("id", Arc::new(ids().collect::<StringArray>()) as _), ("n", numbers() as _)]),
            RecordBatch::try_from_iter([
                ("id", Arc::new(ids().collect::<StringViewArray>()) as _),
                ("n", numbers() as _),
            ]),
        ];
        let sides = sides.map(Result::unwrap);
        let schema = sides[0].schema();
        for (rows, parts) in [(1000, 1), (2000, 4), (1_000_000, PARTS_MAX as usize)] {
            let deal = Deal::of(&lake, rows, &["id", "n"]);
            let mut found: BTreeMap<(Option<String>, i64), (usize, usize)> = BTreeMap::new();
            for side in &sides {
                let frame = SessionContext::new().read_batch(side.clone()).unwrap();
                let dealt = deal.parts(frame, &schema, "a side").await.unwrap();
                assert_eq!(dealt.len(), parts);
                for (part, frame) in dealt.into_iter().enumerate() {
                    for batch in frame.collect().await.unwrap() {
                        let batch = conform(&batch, &schema).unwrap();
                        let (ids, n) =
                            (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
                        for row in 0..batch.num_rows() {
                            let id = ids.is_valid(row).then(|| ids.value(row).to_owned());
                            let (of, rows) = found.entry((id, n.value(row))).or_insert((part, 0));
                            assert_eq!(*of, part, "a row's partner is in another part");
                            *rows += 1;
                        }
                    }
                }
            }
            assert_eq!(found.values().map(|(_, rows)| rows).sum::<usize>(), 20_000);
        }
        let left = std::fs::read_dir(folder.path().join("spill")).unwrap().flatten();
        let left: usize = left.map(|f| std::fs::read_dir(f.path()).unwrap().count()).sum();
        assert_eq!(left, 0, "files of parts that nobody has any more");
    }
}
