//! Batches of bytes to batches of columns.

use std::sync::Arc;

use arrow::array::AsArray;

use super::batch::{Codes, Columns, PADDING, RawBatch};
use super::codes::Coder;
use super::columns::ColumnSet;
use super::general::GeneralParser;
use super::refusal::Refusal;
use super::scan::Scanner;
use super::schema::Schema;
use super::values::Stop;
use crate::config::FieldType;

/// Version of the rules by which a record is an event; verdicts depend on it.
pub const DECODER_VERSION: u32 = 1;

/// Largest batch that can be decoded, in bytes of values: Arrow's string columns count in 31 bits.
pub const MAX_BATCH_BYTES: usize = i32::MAX as usize - PADDING;

/// Decodes the batches of one partition, on that partition's thread; its buffers stay for the next batch.
pub struct Decoder {
    schema: Arc<Schema>,
    general: GeneralParser,
    /// None to have every record read by the general parser.
    scanner: Option<Scanner>,
    columns: ColumnSet,
    /// One per field; none for fields without codes.
    coders: Vec<Option<Coder>>,
}

impl Decoder {
    /// `coded_fields` are the indices of the string fields whose values are to be given as codes.
    pub fn new(schema: Arc<Schema>, coded_fields: &[usize]) -> Self {
        let columns = ColumnSet::new(&schema);
        let coded = |i: &usize| coded_fields.contains(i) && columns.places[*i].kind == FieldType::String;
        let coders = (0..schema.len()).map(|i| coded(&i).then(Coder::new)).collect();
        let scanner = Some(Scanner::new(&schema));
        Self { general: GeneralParser::new(schema.clone()), scanner, columns, coders, schema }
    }

    /// A decoder that never takes the scanner's short cut; for comparison.
    pub fn without_scanner(schema: Arc<Schema>, coded_fields: &[usize]) -> Self {
        Self { scanner: None, ..Self::new(schema, coded_fields) }
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
        let mut keep_payload = vec![false; rows];
        let mut row = 0;
        loop {
            let mut unknown = false;
            if let Some(scanner) = &mut self.scanner {
                let stop;
                (row, stop) = scanner.run(&raw, row, &mut self.columns, &mut keep_payload);
                unknown = stop == Stop::Unknown;
            }
            if row == rows {
                break;
            }
            match self.general_record(&raw, row, unknown) {
                Ok(keep) => keep_payload[row] = keep,
                Err(refusal) => {
                    keep_payload[row] = true;
                    errors.push((row as u32, refusal));
                }
            }
            row += 1;
        }
        if self.schema.keep_always {
            keep_payload.fill(true);
        }
        let event_time = match self.schema.event_time {
            Some(field) => self.columns.micros(field).to_vec(),
            None => vec![0; rows],
        };
        let fields = self.columns.finish();
        let encode = |(i, coder): (usize, &mut Option<Coder>)| -> Option<Codes> {
            coder.as_mut().map(|c| c.encode(fields[i].as_string::<i32>()))
        };
        let codes = self.coders.iter_mut().enumerate().map(encode).collect();
        Columns { raw, fields, event_time, errors, keep_payload, codes }
    }

    /// Decodes one record: whether its bytes must be kept, or why it is no event. The scanner learns from one whose way
    /// of writing is `unknown` to it.
    #[cold]
    fn general_record(&mut self, raw: &RawBatch, row: usize, unknown: bool) -> Result<bool, String> {
        if raw.value_null[row] {
            self.columns.set_row_null(row);
            return Err(Refusal::Tombstone.to_string());
        }
        let value = raw.value(row);
        let accepted = self.general.parse(value, row, &mut self.columns).map_err(|refusal| refusal.to_string())?;
        if let Some(scanner) = &mut self.scanner
            && unknown
            && accepted.plain
        {
            scanner.learn(value, self.general.spans(), &self.columns);
        }
        Ok(accepted.keep_payload)
    }
}
