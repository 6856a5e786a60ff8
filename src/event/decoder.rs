//! Batches of bytes to batches of columns.

use std::sync::Arc;

use arrow::array::AsArray;

use super::batch::{Codes, Columns, PADDING, RawBatch};
use super::codes::Coder;
use super::columns::{ColumnSet, Data};
use super::general::GeneralParser;
use super::refusal::Refusal;
use super::schema::Schema;

/// Version of the rules by which a record is an event; verdicts depend on it.
pub const DECODER_VERSION: u32 = 1;

/// Largest batch that can be decoded, in bytes of values: Arrow's string columns count in 31 bits.
pub const MAX_BATCH_BYTES: usize = i32::MAX as usize - PADDING;

/// Decodes the batches of one partition, on that partition's thread; its buffers stay for the next batch.
pub struct Decoder {
    schema: Arc<Schema>,
    general: GeneralParser,
    columns: ColumnSet,
    /// One per field; none for fields without codes.
    coders: Vec<Option<Coder>>,
}

impl Decoder {
    /// `coded_fields` are the indices of the string fields whose values are to be given as codes.
    pub fn new(schema: Arc<Schema>, coded_fields: &[usize]) -> Self {
        let columns = ColumnSet::new(&schema);
        let coded = |i: &usize| coded_fields.contains(i) && matches!(columns.columns[*i].data, Data::Text(_));
        let coders = (0..schema.len()).map(|i| coded(&i).then(Coder::new)).collect();
        Self { general: GeneralParser::new(schema.clone()), columns, coders, schema }
    }

    /// Decodes a batch. The result of a row depends on its record alone.
    ///
    /// # Panics
    /// If the values are more than [`MAX_BATCH_BYTES`], which whoever fills a batch has to see to.
    pub fn decode(&mut self, mut raw: RawBatch) -> Columns {
        let rows = raw.len();
        let used = raw.value_ends.last().map_or(0, |end| *end as usize);
        assert!(used <= MAX_BATCH_BYTES, "a batch of {used} bytes is more than {MAX_BATCH_BYTES}");
        if raw.values.len() < used + PADDING {
            raw.seal();
        }
        self.columns.begin(rows);
        let mut errors = Vec::new();
        let mut keep_payload = vec![true; rows];
        for row in 0..rows {
            if raw.value_null[row] {
                self.columns.set_row_null(row);
                errors.push((row as u32, Refusal::Tombstone.to_string()));
                continue;
            }
            match self.general.parse(raw.value(row), row, &mut self.columns) {
                Ok(accepted) => keep_payload[row] = accepted.keep_payload,
                Err(refusal) => errors.push((row as u32, refusal.to_string())),
            }
        }
        let event_time = match self.schema.event_time.map(|i| &self.columns.columns[i].data) {
            Some(Data::Time(micros)) => micros.clone(),
            _ => vec![0; rows],
        };
        let fields = self.columns.finish();
        let encode = |(i, coder): (usize, &mut Option<Coder>)| -> Option<Codes> {
            coder.as_mut().map(|c| c.encode(fields[i].as_string::<i32>()))
        };
        let codes = self.coders.iter_mut().enumerate().map(encode).collect();
        Columns { raw, fields, event_time, errors, keep_payload, codes }
    }
}
