//! Strings that repeat: a dictionary and codes.

use std::collections::HashMap;

use arrow::array::{Array, StringArray};
use parquet::basic::Encoding;
use parquet::errors::Result;
use parquet::schema::types::ColumnDescPtr;

use super::hybrid::Runs;
use super::page::{Chunk, Codec, Dictionary, Pages, ZstdContext};
use super::text::Texts;
use super::{Measured, bits};
use crate::event::{Coder, Codes};

/// Bytes at which a dictionary is given up, where values need not repeat.
const LARGEST: usize = 256 << 10;

/// A column of strings.
pub struct WordColumn {
    pages: Pages,
    codes: HashMap<Box<[u8]>, u32>,
    /// The dictionary's page: each value behind its length.
    dictionary: Vec<u8>,
    runs: Runs,
    /// Values go by themselves once the dictionary is full.
    texts: Texts,
    given_up: bool,
    /// The dictionary never becomes full.
    enumerated: bool,
}

impl WordColumn {
    /// `enumerated`: values are known to be few, so that compression would only slow them down.
    pub fn new(column: ColumnDescPtr, enumerated: bool) -> Self {
        Self {
            pages: Pages::new(column, if enumerated { Codec::None } else { Codec::Zstd }),
            codes: HashMap::new(),
            dictionary: Vec::new(),
            runs: Runs::default(),
            texts: Texts::default(),
            given_up: false,
            enumerated,
        }
    }

    /// Appends the rows of an array.
    pub fn push(&mut self, array: &StringArray, coder: &mut Coder, zstd: &mut ZstdContext) -> Result<()> {
        if !self.given_up {
            let codes = coder.encode(array);
            let new = codes.values.iter().filter(|v| !self.codes.contains_key(v.as_bytes())).map(|v| v.len() + 4);
            if self.enumerated || self.dictionary.len() + new.sum::<usize>() <= LARGEST {
                return self.push_codes(&codes, zstd);
            }
            // The dictionary is full: what follows goes by itself, on pages of its own.
            self.flush(zstd)?;
            self.given_up = true;
        }
        let (offsets, bytes) = (array.value_offsets(), array.value_data());
        let mut at = 0;
        let slices = array.nulls().map(|n| n.valid_slices().collect());
        for (from, to) in slices.unwrap_or_else(|| vec![(0, array.len())]) {
            self.pages.add(false, from - at);
            self.texts.extend(&offsets[from..=to], &bytes[offsets[from] as usize..offsets[to] as usize]);
            self.pages.add(true, to - from);
            at = to;
        }
        self.pages.add(false, array.len() - at);
        self.flush_full(zstd)
    }

    /// Appends rows by the codes of their batch; for enumerated values.
    pub fn push_codes(&mut self, codes: &Codes, zstd: &mut ZstdContext) -> Result<()> {
        debug_assert!(!self.given_up, "a page has codes or texts");
        let map: Vec<u32> = codes.values.iter().map(|value| self.code(value.as_bytes())).collect();
        // Rows with a value, or without, that the levels do not know yet.
        let (mut present, mut rows) = (true, 0);
        for code in &codes.codes {
            let here = *code != Codes::NONE;
            if here != present {
                self.pages.add(present, rows);
                (present, rows) = (here, 0);
            }
            rows += 1;
            if here {
                self.runs.push(map[*code as usize], 1);
            }
        }
        self.pages.add(present, rows);
        self.flush_full(zstd)
    }

    /// Appends the same value in so many rows; for enumerated values.
    pub fn repeat(&mut self, value: &str, rows: usize, zstd: &mut ZstdContext) -> Result<()> {
        debug_assert!(self.enumerated, "a page has codes or texts");
        let code = self.code(value.as_bytes());
        self.runs.push(code, rows as u32);
        self.pages.add(true, rows);
        self.flush_full(zstd)
    }

    /// Appends rows without a value.
    pub fn null(&mut self, rows: usize, zstd: &mut ZstdContext) -> Result<()> {
        self.pages.add(false, rows);
        self.flush_full(zstd)
    }

    fn code(&mut self, value: &[u8]) -> u32 {
        if let Some(code) = self.codes.get(value) {
            return *code;
        }
        let code = self.codes.len() as u32;
        self.codes.insert(value.into(), code);
        self.dictionary.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.dictionary.extend_from_slice(value);
        code
    }

    fn flush_full(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        if self.pages.is_full(self.texts.bytes.len()) { self.flush(zstd) } else { Ok(()) }
    }

    fn flush(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        if !self.pages.is_begun() {
            return Ok(());
        }
        let width = bits(self.codes.len().saturating_sub(1) as u64).max(1);
        let (runs, texts) = (&self.runs, &mut self.texts);
        self.pages.flush(zstd, |out| {
            if runs.len() == 0 {
                return texts.encode(out);
            }
            out.push(width as u8);
            runs.encode(out, width);
            Encoding::RLE_DICTIONARY
        })?;
        self.runs.clear();
        Ok(())
    }

    /// The finished chunk.
    pub fn close(mut self, zstd: &mut ZstdContext) -> Result<Chunk> {
        self.flush(zstd)?;
        let dictionary = Dictionary { values: &self.dictionary, count: self.codes.len() };
        self.pages.close(zstd, (dictionary.count > 0).then_some(dictionary), None)
    }
}

impl Measured for WordColumn {
    fn bytes(&self) -> usize {
        self.pages.bytes() + self.dictionary.len() + self.texts.bytes.len() + self.runs.memory() / 8
    }

    fn memory(&self) -> usize {
        self.pages.memory() + self.dictionary.capacity() * 2 + self.texts.memory() + self.runs.memory()
    }
}
