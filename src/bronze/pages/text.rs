//! Bytes that hardly repeat: their lengths as differences, then the bytes, compressed together.

use arrow::buffer::NullBuffer;
use parquet::basic::Encoding;
use parquet::errors::Result;
use parquet::schema::types::ColumnDescPtr;

use super::page::{Chunk, Codec, Pages, ZstdContext};
use super::{Measured, delta};

/// A column of strings or of bytes.
pub struct TextColumn {
    pages: Pages,
    held: Texts,
}

/// The values of a page at hand.
#[derive(Default)]
pub(super) struct Texts {
    pub lengths: Vec<i64>,
    pub bytes: Vec<u8>,
}

impl TextColumn {
    pub fn new(column: ColumnDescPtr) -> Self {
        Self { pages: Pages::new(column, Codec::Zstd), held: Texts::default() }
    }

    /// Appends rows whose values stand one behind the other in `bytes`, each from an offset to the next one.
    pub fn push(
        &mut self,
        offsets: &[i32],
        bytes: &[u8],
        nulls: Option<&NullBuffer>,
        zstd: &mut ZstdContext,
    ) -> Result<()> {
        let rows = offsets.len() - 1;
        match nulls.filter(|n| n.null_count() > 0) {
            None => self.present(offsets, bytes, zstd),
            Some(nulls) => {
                let mut at = 0;
                for (from, to) in nulls.valid_slices() {
                    self.null(from - at, zstd)?;
                    self.present(&offsets[from..=to], bytes, zstd)?;
                    at = to;
                }
                self.null(rows - at, zstd)
            }
        }
    }

    /// Appends rows without a value.
    pub fn null(&mut self, rows: usize, zstd: &mut ZstdContext) -> Result<()> {
        self.pages.add(false, rows);
        self.flush_full(zstd)
    }

    fn present(&mut self, offsets: &[i32], bytes: &[u8], zstd: &mut ZstdContext) -> Result<()> {
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(()) };
        // A batch holds large values only if it holds few, so one page takes them all.
        self.held.extend(offsets, &bytes[*first as usize..*last as usize]);
        self.pages.add(true, offsets.len() - 1);
        self.flush_full(zstd)
    }

    fn flush_full(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        if self.pages.is_full(self.held.bytes.len()) { self.flush(zstd) } else { Ok(()) }
    }

    fn flush(&mut self, zstd: &mut ZstdContext) -> Result<()> {
        if !self.pages.is_begun() {
            return Ok(());
        }
        let held = &mut self.held;
        self.pages.flush(zstd, |out| held.encode(out))
    }

    /// The finished chunk.
    pub fn close(mut self, zstd: &mut ZstdContext) -> Result<Chunk> {
        self.flush(zstd)?;
        self.pages.close(zstd, None, None)
    }
}

impl Measured for TextColumn {
    fn bytes(&self) -> usize {
        self.pages.bytes() + self.held.bytes.len()
    }

    fn memory(&self) -> usize {
        self.pages.memory() + self.held.memory()
    }
}

impl Texts {
    /// Appends values that stand one behind the other in `bytes`, by their offsets in whatever `bytes` is a part of.
    pub fn extend(&mut self, offsets: &[i32], bytes: &[u8]) {
        self.lengths.extend(offsets.windows(2).map(|w| i64::from(w[1] - w[0])));
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends the values to a page and forgets them; their encoding.
    pub fn encode(&mut self, out: &mut Vec<u8>) -> Encoding {
        if self.lengths.is_empty() {
            return Encoding::PLAIN;
        }
        delta::encode(out, &self.lengths);
        out.extend_from_slice(&self.bytes);
        self.lengths.clear();
        self.bytes.clear();
        Encoding::DELTA_LENGTH_BYTE_ARRAY
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.lengths.capacity() * 8 + self.bytes.capacity()
    }
}
