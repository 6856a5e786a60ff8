//! Runs and bit-packed groups: how levels and dictionary codes are written.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>

use super::{Packer, bits, varint};

/// `count` times the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub value: u32,
    pub count: u32,
}

/// Runs in the making; equal neighbours are one.
#[derive(Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
    total: usize,
}

impl Runs {
    #[inline]
    pub fn push(&mut self, value: u32, count: u32) {
        self.total += count as usize;
        match self.runs.last_mut() {
            Some(last) if last.value == value => last.count += count,
            _ if count > 0 => self.runs.push(Run { value, count }),
            _ => {}
        }
    }

    /// Values, not runs.
    pub fn len(&self) -> usize {
        self.total
    }

    pub fn clear(&mut self) {
        self.runs.clear();
        self.total = 0;
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.runs.len() * size_of::<Run>()
    }

    /// Appends the levels of a data page, their length before them; `greatest` is the greatest level of the column.
    pub fn encode_levels(&self, out: &mut Vec<u8>, greatest: u64) {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.encode(out, bits(greatest));
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Appends all values, `width` bits each: as runs where they are long, else bit-packed.
    pub fn encode(&self, out: &mut Vec<u8>, width: u32) {
        // A run takes two bytes or more; eight packed values take as many bytes as a value has bits.
        if self.runs.len() * 8 <= self.total {
            for run in &self.runs {
                varint(out, u64::from(run.count) << 1);
                out.extend_from_slice(&run.value.to_le_bytes()[..width.div_ceil(8) as usize]);
            }
            return;
        }
        let groups = self.total.div_ceil(8);
        varint(out, (groups as u64) << 1 | 1);
        let mut packer = Packer::new(out, width);
        for run in &self.runs {
            for _ in 0..run.count {
                packer.push(run.value.into());
            }
        }
        // The last group is whole.
        for _ in self.total..groups * 8 {
            packer.push(0);
        }
        packer.finish();
    }
}
