//! How many rows repeat others.
//!
//! Each row is told by a number first, a hash of its columns; only rows whose number another row bears too are compared
//! by value. Where nearly all rows differ, which is what is expected, that costs a fraction of grouping them.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use datafusion::common::{DataFusionError, HashSet};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

/// Bytes of a row that is compared by value, about.
const SUSPECT_BYTES: usize = 256;
/// Passes over the table; where more are wanted, many rows are alike, which is the engine's to count.
const PARTS_MAX: u64 = 64;

/// A search for rows that are alike in some columns.
pub struct Search<'a> {
    session: &'a SessionContext,
    /// Column names as SQL, separated by commas.
    columns: &'a str,
    /// The table, as SQL.
    from: &'a str,
    /// Numbers that are held at a time; of more rows they are held in parts.
    rows_max: usize,
    /// Rows that are compared by value here; more are left to the engine, which can spill.
    suspects_max: u64,
    hash: QualityRandomState,
    mask: u64,
}

impl<'a> Search<'a> {
    /// A search that holds `memory` bytes at most.
    pub fn new(session: &'a SessionContext, columns: &'a str, from: &'a str, memory: usize) -> Self {
        Self {
            session,
            columns,
            from,
            rows_max: (memory / 2 / size_of::<u64>()).max(1),
            suspects_max: (memory / 2 / SUSPECT_BYTES) as u64,
            hash: QualityRandomState::with_seed(rand::random()),
            mask: u64::MAX,
        }
    }

    /// Rows that were looked at, and how many of them repeat another.
    pub async fn count(&self) -> Result<(u64, u64), DataFusionError> {
        let (mut rows, mut suspects) = (0, 0);
        let mut shared: HashSet<u64> = HashSet::new();
        let (mut part, mut parts) = (0, 1);
        let mut crowded = false;
        while part < parts {
            let mut hashes = Vec::new();
            rows = 0;
            self.each(|_, of_batch| {
                rows += of_batch.len() as u64;
                if !crowded {
                    hashes.extend(of_batch.iter().filter(|hash| *hash % parts == part));
                }
                while part == 0 && hashes.len() > self.rows_max {
                    parts *= 2;
                    hashes.retain(|hash| hash % parts == 0);
                    if parts > PARTS_MAX {
                        crowded = true;
                        hashes.clear();
                    }
                }
                Ok(())
            })
            .await?;
            hashes.sort_unstable();
            for alike in hashes.chunk_by(|a, b| a == b).filter(|alike| alike.len() > 1) {
                shared.insert(alike[0]);
                suspects += alike.len() as u64;
            }
            if crowded || suspects > self.suspects_max {
                return self.count_by_value(self.from).await;
            }
            part += 1;
        }
        if suspects == 0 {
            return Ok((rows, 0));
        }
        let mut found: Vec<RecordBatch> = Vec::new();
        self.each(|batch, of_batch| {
            let wanted: BooleanArray = of_batch.iter().map(|hash| Some(shared.contains(hash))).collect();
            if wanted.true_count() > 0 {
                found.push(filter_record_batch(batch, &wanted)?);
            }
            Ok(())
        })
        .await?;
        let Some(first) = found.first() else { return Ok((rows, 0)) };
        const SUSPECTS: &str = "boathouse_suspects";
        self.session.register_table(SUSPECTS, std::sync::Arc::new(MemTable::try_new(first.schema(), vec![found])?))?;
        let counted = self.count_by_value(SUSPECTS).await;
        self.session.deregister_table(SUSPECTS)?;
        Ok((rows, counted?.1))
    }

    /// Hands over each batch with the hashes of its rows.
    async fn each(
        &self,
        mut take: impl FnMut(&RecordBatch, &[u64]) -> Result<(), DataFusionError>,
    ) -> Result<(), DataFusionError> {
        let sql = format!("SELECT {} FROM {}", self.columns, self.from);
        let mut batches = self.session.sql(&sql).await?.execute_stream().await?;
        let mut hashes = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            hashes.clear();
            hashes.resize(batch.num_rows(), 0);
            create_hashes(batch.columns(), &self.hash, &mut hashes)?;
            hashes.iter_mut().for_each(|hash| *hash &= self.mask);
            take(&batch, &hashes)?;
        }
        Ok(())
    }

    async fn count_by_value(&self, from: &str) -> Result<(u64, u64), DataFusionError> {
        let sql = format!(
            "SELECT coalesce(sum(n), 0) AS checked, coalesce(sum(n - 1), 0) AS failed \
             FROM (SELECT count(*) AS n FROM {from} GROUP BY {})",
            self.columns
        );
        let batches = self.session.sql(&sql).await?.collect().await?;
        let row = batches.iter().find(|batch| batch.num_rows() > 0);
        let count = |column: usize| -> Result<u64, DataFusionError> {
            let Some(row) = row else { return Ok(0) };
            let counts = cast(row.column(column), &DataType::Int64)?;
            let count = arrow::array::AsArray::as_primitive::<Int64Type>(&counts).value(0);
            Ok(count.unsigned_abs())
        };
        Ok((count(0)?, count(1)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    async fn check(rows: &[(Option<u8>, i64)], bits: u32, memory: usize) {
        let batches = rows.chunks(7).map(|rows| {
            let texts = StringArray::from_iter(rows.iter().map(|row| row.0.map(|id| format!("event {id}"))));
            let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
            RecordBatch::try_from_iter_with_nullable([
                ("a", Arc::new(texts) as arrow::array::ArrayRef, true),
                ("b", Arc::new(numbers), true),
            ])
            .unwrap()
        });
        let batches: Vec<RecordBatch> = batches.collect();
        let session = SessionContext::new();
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        session.register_table("t", Arc::new(table)).unwrap();
        let search = Search::new(&session, "\"a\", \"b\"", "t", memory);
        let search = Search { mask: if bits == 64 { u64::MAX } else { (1 << bits) - 1 }, ..search };
        let distinct = rows.iter().collect::<BTreeSet<_>>().len();
        let expected = (rows.len() as u64, (rows.len() - distinct) as u64);
        assert_eq!(search.count().await.unwrap(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However many rows share a number, and however little memory there is.
        #[test]
        fn rows_that_repeat_are_counted(
            rows in proptest::collection::vec((proptest::option::of(0..20u8), 0..3i64), 1..100),
            bits in prop_oneof![Just(0), Just(3), Just(64)],
            memory in prop_oneof![Just(0), Just(1 << 11), Just(1 << 20)],
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(check(&rows, bits, memory));
        }
    }
}
