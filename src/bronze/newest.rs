//! The newest rows of a partition with their verdicts, from the files with the greatest offsets down.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;

use super::files::{DataFile, column, data_files, place_columns, rows_of};
use super::{BronzeError, Table};
use crate::kafka::Source;
use crate::window::Verdict;

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub offset: i64,
    pub verdict: Verdict,
    /// Why it is no event, where it is none.
    pub error: Option<String>,
}

impl Table {
    /// The rows of a partition with the greatest of the given offsets, at most `most` of them, in offset order. As many
    /// files are read as it takes, and a few columns of them.
    pub async fn newest_rows(
        &self,
        source: &Source,
        offsets: Range<i64>,
        most: usize,
    ) -> Result<Vec<Judged>, BronzeError> {
        let mut newest = Newest { offsets, most, rows: Vec::new() };
        if newest.offsets.is_empty() {
            return Ok(newest.rows);
        }
        let store = self.log().store().object_store(None);
        let may_hold = |file: &DataFile| {
            file.may_hold(source)
                && *file.offsets.start() < newest.offsets.end
                && *file.offsets.end() >= newest.offsets.start
        };
        let mut files = data_files(self.log(), None, may_hold).await?;
        files.sort_by_key(|file| Reverse(*file.offsets.end()));
        for file in files {
            newest.keep();
            if newest.are_all(&file) {
                break;
            }
            newest.read(&file, &store, source).await?;
        }
        newest.keep();
        Ok(newest.rows)
    }
}

struct Newest {
    offsets: Range<i64>,
    most: usize,
    rows: Vec<Judged>,
}

impl Newest {
    /// Puts the rows in order and keeps the newest.
    fn keep(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.offset);
        self.rows.drain(..self.rows.len().saturating_sub(self.most));
    }

    /// Whether neither this file nor one with lesser offsets can have a row that is wanted. (The statistics of a file are of all
    /// its partitions.)
    fn are_all(&self, next: &DataFile) -> bool {
        let Some(first) = self.rows.first().map(|row| row.offset) else { return false };
        let full = self.rows.len() == self.most;
        let without_gaps = self.offsets.end - first == self.rows.len() as i64;
        full && *next.offsets.end() < first || without_gaps && (full || first == self.offsets.start)
    }

    async fn read(
        &mut self,
        file: &DataFile,
        store: &Arc<dyn ObjectStore>,
        source: &Source,
    ) -> Result<(), BronzeError> {
        let builder = file.open(store).await?;
        let names = place_columns().into_iter().chain(["time_status", "parse_error"]);
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let mut batches = builder.with_projection(mask).build().map_err(|e| file.unreadable(e))?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| file.unreadable(e))?;
            self.add(&batch, source).ok_or_else(|| file.unreadable("a column is missing or has another type"))?;
            // A file has many more rows than are wanted.
            if self.rows.len() > 4 * self.most.max(batch.num_rows()) {
                self.keep();
            }
        }
        Ok(())
    }

    /// Adds the rows of a batch; none where it lacks a column that every file has.
    fn add(&mut self, batch: &RecordBatch, source: &Source) -> Option<()> {
        let offsets = column::<Int64Type>(batch, "offset")?;
        let status = batch.column_by_name("time_status")?.as_string_opt::<i32>()?;
        let errors = batch.column_by_name("parse_error")?.as_string_opt::<i32>()?;
        for (row, _) in rows_of(batch, source)?.iter().enumerate().filter(|(_, own)| **own) {
            if self.offsets.contains(&offsets[row]) {
                let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == status.value(row))?;
                let error = errors.is_valid(row).then(|| errors.value(row).to_owned());
                self.rows.push(Judged { offset: offsets[row], verdict, error });
            }
        }
        Some(())
    }
}
