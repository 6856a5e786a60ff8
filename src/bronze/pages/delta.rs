//! Differences to the value before, bit-packed in blocks.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#DELTAENC>

use super::{Packer, bits, varint, zigzag};

const BLOCK: usize = 128;
const MINI_BLOCKS: usize = 4;
const MINI: usize = BLOCK / MINI_BLOCKS;

/// Appends the values as `DELTA_BINARY_PACKED`.
pub fn encode(out: &mut Vec<u8>, values: &[i64]) {
    varint(out, BLOCK as u64);
    varint(out, MINI_BLOCKS as u64);
    varint(out, values.len() as u64);
    let Some((first, rest)) = values.split_first() else { return zigzag(out, 0) };
    zigzag(out, *first);
    let mut last = *first;
    for block in rest.chunks(BLOCK) {
        let mut deltas = [0; BLOCK];
        let mut least = i64::MAX;
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(last);
            least = least.min(*delta);
            last = *value;
        }
        zigzag(out, least);
        let minis = block.len().div_ceil(MINI);
        // What lies behind the last value is taken for the least delta, so that it needs no bits.
        deltas[block.len()..].fill(least);
        let mut widths = [0; MINI_BLOCKS];
        for (width, mini) in widths.iter_mut().zip(deltas.chunks_exact_mut(MINI)) {
            let mut all = 0;
            for delta in mini {
                *delta = delta.wrapping_sub(least);
                all |= *delta as u64;
            }
            *width = bits(all) as u8;
        }
        out.extend_from_slice(&widths);
        for (mini, width) in deltas.chunks_exact(MINI).zip(widths).take(minis) {
            pack(out, mini, width.into());
        }
    }
}

fn pack(out: &mut Vec<u8>, mini: &[i64], width: u32) {
    match width {
        0 => {}
        1..=32 => {
            let mut packer = Packer::new(out, width);
            mini.iter().for_each(|delta| packer.push(*delta as u64));
            packer.finish();
        }
        _ => {
            let (mut held, mut count) = (0_u128, 0);
            for delta in mini {
                held |= u128::from(*delta as u64) << count;
                count += width;
                while count >= 32 {
                    out.extend_from_slice(&(held as u32).to_le_bytes());
                    held >>= 32;
                    count -= 32;
                }
            }
            // 32 values of any width are whole words.
        }
    }
}
