//! Bronze's rows as window states and the count of bad records want them: the one place where [`crate::serving`] meets
//! [`crate::bronze`], which do not know each other.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;

use crate::bronze::{self, BronzeError};
use crate::config::Pipeline;
use crate::event::Coder;
use crate::kafka::Source;
use crate::serving::{BronzeRows, RecoverError};
use crate::window::{Counter, MissingCodes, OkRows, RowsWanted, Rule, Standing};

/// A pipeline's Bronze table as of one version.
pub struct TableRows<'a> {
    pub table: &'a bronze::Table,
    /// The newest if none is given.
    pub version: Option<u64>,
    pub pipeline: &'a Pipeline,
}

impl BronzeRows for TableRows<'_> {
    async fn standing(&self, source: &Arc<Source>) -> Result<Standing, RecoverError> {
        let acquired = self.table.ledger().acquire(std::slice::from_ref(source)).await;
        let acquired = acquired.map_err(|e| RecoverError::Bronze(Box::new(e)))?;
        let position = acquired.positions.first().copied().flatten();
        let unknown = || RecoverError::Bronze(format!("Bronze does not know {source} any more").into());
        let position = position.ok_or_else(unknown)?;
        Ok(Standing { next_offset: position.next_offset, mark: position.mark })
    }

    async fn ok_rows(
        &self,
        source: &Source,
        wanted: &RowsWanted,
        fields: &[usize],
        each: &mut (dyn FnMut(&OkRows) -> Result<(), MissingCodes> + Send),
    ) -> Result<(), RecoverError> {
        let wanted = bronze::OkRows {
            source: Arc::new(source.clone()),
            offsets: wanted.offsets.clone(),
            event_time_from: wanted.event_time_from,
            fields: fields.iter().map(|f| self.pipeline.fields[*f].name.clone()).collect(),
        };
        let failed = |e| RecoverError::Bronze(Box::new(e));
        let mut batches = self.table.ok_rows(self.version, wanted).await.map_err(failed)?;
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            let rows = columns(&batch, fields, self.pipeline.fields.len())
                .ok_or_else(|| RecoverError::Bronze("a column of Bronze's rows has another type".into()))?;
            each(&rows)?;
        }
        Ok(())
    }
}

/// Counts the newest of the rows that Bronze has of a partition below `position`, as its reader has counted the records.
pub async fn bad_records(
    table: &bronze::Table,
    source: &Source,
    position: i64,
    rule: Rule,
) -> Result<Counter, BronzeError> {
    let accepted = table.bad_records_accepted(source).await?;
    let mut counter = Counter::new(rule, accepted);
    for row in table.newest_rows(source, accepted..position, rule.of).await? {
        counter.count(row.offset, row.verdict, row.error.as_deref());
    }
    Ok(counter)
}

/// Columns of a batch: offset, event time, then the fields.
fn columns(batch: &RecordBatch, fields: &[usize], fields_of_pipeline: usize) -> Option<OkRows> {
    let offsets = batch.column(0).as_primitive_opt::<Int64Type>()?.values().to_vec();
    let event_time = batch.column(1).as_primitive_opt::<TimestampMicrosecondType>()?.values().to_vec();
    let mut codes = vec![None; fields_of_pipeline];
    let mut coder = Coder::new();
    for (index, field) in fields.iter().enumerate() {
        *codes.get_mut(*field)? = Some(coder.encode(batch.column(2 + index).as_string_opt::<i32>()?));
    }
    Some(OkRows { offsets, event_time, codes })
}
