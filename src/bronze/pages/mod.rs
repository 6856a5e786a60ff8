//! Parquet pages of our own: the columns of Bronze in the encodings that suit them, straight from a batch's buffers.
//!
//! ArrowWriter hashes every value of a dictionary column and walks the levels of every row, constant columns and nulls
//! included. Here a constant costs one run a batch, codes are taken over from the decoder, and nothing goes through an
//! Arrow array first: half the CPU. What is written is plain Parquet: version 1 data pages, `RLE_DICTIONARY`,
//! `DELTA_BINARY_PACKED` and `DELTA_LENGTH_BYTE_ARRAY`.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

mod delta;
mod headers;
mod hybrid;
mod number;
mod page;
mod plain;
#[cfg(test)]
mod tests;
mod text;
mod word;

pub use headers::HeaderColumn;
pub use number::NumberColumn;
pub use page::ZstdContext;
pub use plain::{PlainColumn, PlainLayout};
pub use text::TextColumn;
pub use word::WordColumn;

/// Rows of a page, nearly: a reader's unit of work. Larger ones fall out of the processor's cache while they are made.
const PAGE_ROWS: usize = 20_000;
/// Bytes of values at which a page is full before it has so many rows.
const PAGE_BYTES: usize = 1 << 20;

/// How large a column of a row group is so far.
pub trait Measured {
    /// Bytes of the file, nearly.
    fn bytes(&self) -> usize;

    /// Bytes of memory, nearly.
    fn memory(&self) -> usize;
}

/// A number of up to 64 bits in groups of seven, the least first.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A signed number, so that small negative ones are short too.
fn zigzag(out: &mut Vec<u8>, value: i64) {
    varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bits that hold every number up to `greatest`.
fn bits(greatest: u64) -> u32 {
    64 - greatest.leading_zeros()
}

/// Packs numbers of `width` bits (32 at most) one behind the other, the least bit first; the last byte is filled up with
/// zeros.
struct Packer<'a> {
    out: &'a mut Vec<u8>,
    width: u32,
    held: u64,
    /// Bits held, below 32.
    count: u32,
}

impl<'a> Packer<'a> {
    fn new(out: &'a mut Vec<u8>, width: u32) -> Self {
        debug_assert!(width <= 32);
        Self { out, width, held: 0, count: 0 }
    }

    #[inline]
    fn push(&mut self, value: u64) {
        self.held |= value << self.count;
        self.count += self.width;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    fn finish(self) {
        let bytes = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
    }
}
