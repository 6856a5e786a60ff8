//! Integers and timestamps: by a dictionary while there are few distinct ones, then by differences.

use arrow::buffer::NullBuffer;
use parquet::basic::{Encoding, Type};
use parquet::errors::Result;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescPtr;

use super::hybrid::Runs;
use super::page::{Chunk, Codec, Dictionary, Pages, ZstdContext};
use super::{Measured, bits, delta};

/// Distinct values at which a dictionary is given up.
const MOST_DISTINCT: usize = 1 << 14;
/// Slots at first of the table in which values are found; a power of two.
const SLOTS: usize = 256;
const FREE: u32 = u32::MAX;

/// A column of 32 or 64 bit integers.
pub struct NumberColumn {
    pages: Pages,
    /// 32 bits, or 64.
    narrow: bool,
    /// None where values hardly repeat, or have turned out to.
    codes: Option<Codes>,
    /// Values that went into the dictionary, if there is one.
    dictionary: Vec<i64>,
    /// Values of the page at hand that go by differences.
    values: Vec<i64>,
    range: Option<(i64, i64)>,
}

/// The page at hand as codes, and where to find a value's.
struct Codes {
    /// Codes by hash; a power of two, twice the values or more.
    slots: Vec<u32>,
    runs: Runs,
}

impl NumberColumn {
    /// `repeats`: few distinct values are expected.
    pub fn new(column: ColumnDescPtr, repeats: bool) -> Self {
        let narrow = column.physical_type() == Type::INT32;
        let codes = repeats.then(|| Codes { slots: vec![FREE; SLOTS], runs: Runs::default() });
        let pages = Pages::new(column, Codec::None);
        Self { pages, narrow, codes, dictionary: Vec::new(), values: Vec::new(), range: None }
    }

    /// Appends one row a value; `nulls` says which of them are there.
    pub fn push(&mut self, values: &[i64], nulls: Option<&NullBuffer>, zstd: &mut ZstdContext) -> Result<()> {
        match nulls.filter(|n| n.null_count() > 0) {
            None => self.present(values, zstd),
            Some(nulls) => {
                let mut at = 0;
                for (from, to) in nulls.valid_slices() {
                    self.null(from - at, zstd)?;
                    self.present(&values[from..to], zstd)?;
                    at = to;
                }
                self.null(values.len() - at, zstd)
            }
        }
    }

    /// Appends the same value in so many rows.
    pub fn repeat(&mut self, value: i64, rows: usize, zstd: &mut ZstdContext) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.see(value, value);
        match self.code(value, zstd)? {
            Some(code) => {
                if let Some(codes) = &mut self.codes {
                    codes.runs.push(code, rows as u32);
                }
            }
            None => self.values.resize(self.values.len() + rows, value),
        }
        self.pages.add(true, rows);
        self.flush_full(zstd)
    }

    fn null(&mut self, rows: usize, zstd: &mut ZstdContext) -> Result<()> {
        self.pages.add(false, rows);
        self.flush_full(zstd)
    }

    fn present(&mut self, values: &[i64], zstd: &mut ZstdContext) -> Result<()> {
        let Some(first) = values.first() else { return Ok(()) };
        let (mut least, mut greatest) = (*first, *first);
        for value in values {
            least = least.min(*value);
            greatest = greatest.max(*value);
        }
        self.see(least, greatest);
        let mut rest = values;
        while self.codes.is_some() {
            let coded = self.coded(rest);
            self.pages.add(true, coded);
            rest = &rest[coded..];
            if rest.is_empty() {
                return self.flush_full(zstd);
            }
            // The dictionary is full: what it has not is written by differences, on pages of their own.
            self.give_up(zstd)?;
        }
        self.values.extend_from_slice(rest);
        self.pages.add(true, rest.len());
        self.flush_full(zstd)
    }

    /// Appends codes until a value has none and can get none; how many.
    fn coded(&mut self, values: &[i64]) -> usize {
        let Some(Codes { slots, runs }) = &mut self.codes else { return 0 };
        for (i, value) in values.iter().enumerate() {
            match code(slots, &mut self.dictionary, *value) {
                Some(code) => runs.push(code, 1),
                None => return i,
            }
        }
        values.len()
    }

    /// The value's code; none once there is no dictionary.
    fn code(&mut self, value: i64, zstd: &mut ZstdContext) -> Result<Option<u32>> {
        let Some(codes) = &mut self.codes else { return Ok(None) };
        match code(&mut codes.slots, &mut self.dictionary, value) {
            Some(code) => Ok(Some(code)),
            None => self.give_up(zstd).map(|()| None),
        }
    }

    fn give_up(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        self.flush(zstd)?;
        self.codes = None;
        Ok(())
    }

    fn see(&mut self, least: i64, greatest: i64) {
        let (a, b) = self.range.unwrap_or((least, greatest));
        self.range = Some((a.min(least), b.max(greatest)));
    }

    fn flush_full(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        if self.pages.is_full(self.values.len() * 8) { self.flush(zstd) } else { Ok(()) }
    }

    fn flush(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        if !self.pages.is_begun() {
            return Ok(());
        }
        let width = bits(self.dictionary.len().saturating_sub(1) as u64).max(1);
        let (codes, values) = (&self.codes, &self.values);
        self.pages.flush(zstd, |out| match codes {
            Some(codes) if codes.runs.len() > 0 => {
                out.push(width as u8);
                codes.runs.encode(out, width);
                Encoding::RLE_DICTIONARY
            }
            _ if values.is_empty() => Encoding::PLAIN,
            _ => {
                delta::encode(out, values);
                Encoding::DELTA_BINARY_PACKED
            }
        })?;
        self.values.clear();
        if let Some(codes) = &mut self.codes {
            codes.runs.clear();
        }
        Ok(())
    }

    /// The finished chunk.
    pub fn close(mut self, zstd: &mut ZstdContext) -> Result<Chunk> {
        self.flush(zstd)?;
        let nulls = Some(self.pages.nulls() as u64);
        let statistics = self.range.map(|(least, greatest)| match self.narrow {
            true => Statistics::int32(Some(least as i32), Some(greatest as i32), None, nulls, false),
            false => Statistics::int64(Some(least), Some(greatest), None, nulls, false),
        });
        let mut values = Vec::with_capacity(self.dictionary.len() * 8);
        for value in &self.dictionary {
            match self.narrow {
                true => values.extend_from_slice(&(*value as i32).to_le_bytes()),
                false => values.extend_from_slice(&value.to_le_bytes()),
            }
        }
        let dictionary = Dictionary { values: &values, count: self.dictionary.len() };
        self.pages.close(zstd, (dictionary.count > 0).then_some(dictionary), statistics)
    }
}

impl Measured for NumberColumn {
    fn bytes(&self) -> usize {
        let held = self.codes.as_ref().map_or(0, |c| c.runs.len() * 2);
        self.pages.bytes() + self.values.len() * 4 + self.dictionary.len() * 8 + held
    }

    fn memory(&self) -> usize {
        let codes = self.codes.as_ref().map_or(0, |c| c.runs.memory() + c.slots.len() * 4);
        self.pages.memory() + (self.values.capacity() + self.dictionary.capacity()) * 8 + codes
    }
}

/// The code of a value, a new one if it has none yet; none if the dictionary is full.
#[inline]
fn code(slots: &mut Vec<u32>, dictionary: &mut Vec<i64>, value: i64) -> Option<u32> {
    let slot = slot_of(slots, dictionary, value);
    if slots[slot] != FREE {
        return Some(slots[slot]);
    }
    add(slots, dictionary, value, slot)
}

/// Where the value's code is, or would be.
#[inline]
fn slot_of(slots: &[u32], dictionary: &[i64], value: i64) -> usize {
    // Timestamps are multiples of a power of ten: only the upper bits of the product are mixed well.
    let hash = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut slot = (hash >> (64 - slots.len().trailing_zeros())) as usize;
    while slots[slot] != FREE && dictionary[slots[slot] as usize] != value {
        slot = (slot + 1) % slots.len();
    }
    slot
}

#[cold]
fn add(slots: &mut Vec<u32>, dictionary: &mut Vec<i64>, value: i64, slot: usize) -> Option<u32> {
    if dictionary.len() == MOST_DISTINCT {
        return None;
    }
    let code = dictionary.len() as u32;
    slots[slot] = code;
    dictionary.push(value);
    if dictionary.len() * 2 > slots.len() {
        *slots = vec![FREE; slots.len() * 4];
        for (code, value) in dictionary.iter().enumerate() {
            let slot = slot_of(slots, dictionary, *value);
            slots[slot] = code as u32;
        }
    }
    Some(code)
}
