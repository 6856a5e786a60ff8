//! What silver's rules say of single rows: of an event before it is sent, of a row of Bronze before a run reads it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use datafusion::prelude::SessionContext;

use super::reasons::{Quarantine, Rules};
use crate::batch::BatchError;
use crate::config::Pipeline;

/// A pipeline's rules, for rows that are at hand.
pub struct RowRules(Rules);

impl RowRules {
    pub fn of(pipeline: &Pipeline) -> Result<Self, BatchError> {
        let quarantine = Quarantine::of(pipeline)?;
        Rules::compile(&SessionContext::new(), pipeline, &quarantine).map(Self)
    }

    /// The columns of Bronze that the rules look at.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.columns().fields().iter().map(|field| field.name().as_str())
    }

    /// Why each row would be refused; nothing where it would be kept. A column that the rows lack is null.
    pub fn reasons(&self, rows: &RecordBatch) -> Result<Vec<Vec<String>>, BatchError> {
        let failed = |e: arrow::error::ArrowError| BatchError::unavailable("rows cannot be judged", e);
        let schema = self.0.columns();
        let columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .map(|field| match rows.column_by_name(field.name()) {
                Some(column) => cast(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            })
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let rows = RecordBatch::try_new(Arc::clone(schema), columns).map_err(failed)?;
        let names = self.0.names();
        let of_row = |reasons: u128| {
            let found = names.iter().enumerate().filter(|(bit, _)| reasons & (1 << bit) != 0);
            found.map(|(_, name)| name.clone()).collect()
        };
        Ok(self.0.judge(&rows)?.into_iter().map(of_row).collect())
    }
}
