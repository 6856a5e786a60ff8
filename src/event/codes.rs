//! String columns as codes: a dictionary for each batch.
//!
//! A dictionary lives no longer than its batch, so random values cost the memory of the batch that brings them and no
//! more. Enumerated values, the rule, are found in a small table by one comparison; whatever misses it goes to a hash
//! map whose keyed hash nobody outside can make collide.

use std::collections::HashMap;

use arrow::array::{Array, StringArray};

use super::batch::Codes;
use super::bytes::load8;

/// Slots of the small table; a power of two.
const SLOTS: usize = 64;
/// Longest value that the small table takes.
const SHORT: usize = 16;

/// Gives codes to the values of a column, batch after batch.
pub(crate) struct Coder {
    slots: [Slot; SLOTS],
    known: HashMap<Box<[u8]>, u32>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// The value's bytes as two little-endian numbers, zeros behind them.
    words: [u64; 2],
    len: u32,
    code: u32,
}

const FREE: Slot = Slot { words: [0; 2], len: u32::MAX, code: Codes::NONE };

/// The masks that leave the first bytes of 16, by their number.
const FIRST_BYTES: [[u64; 2]; SHORT + 1] = {
    let mut masks = [[u64::MAX; 2]; SHORT + 1];
    let mut len = 0;
    while len < SHORT {
        let bits = 8 * (len % 8) as u32;
        masks[len] = if len < 8 { [(1 << bits) - 1, 0] } else { [u64::MAX, (1 << bits) - 1] };
        len += 1;
    }
    masks
};

impl Coder {
    pub fn new() -> Self {
        Self { slots: [FREE; SLOTS], known: HashMap::new() }
    }

    /// The codes of a column, in order of first appearance.
    pub fn encode(&mut self, column: &StringArray) -> Codes {
        self.slots = [FREE; SLOTS];
        self.known.clear();
        if self.known.capacity() > 1024 {
            self.known.shrink_to(64);
        }
        let mut values = Vec::new();
        let bytes = column.value_data();
        let ends = column.value_offsets().windows(2);
        let code = |(start, end): (i32, i32)| self.code(bytes, start as usize, end as usize, &mut values);
        let ranges = ends.map(|w| (w[0], w[1]));
        let codes = match column.nulls() {
            None => ranges.map(code).collect(),
            Some(nulls) => {
                let mut code = code;
                ranges.zip(nulls).map(|(range, valid)| if valid { code(range) } else { Codes::NONE }).collect()
            }
        };
        Codes { codes, values }
    }

    #[inline]
    fn code(&mut self, bytes: &[u8], start: usize, end: usize, values: &mut Vec<String>) -> u32 {
        let len = end - start;
        if len > SHORT {
            return self.look_up(&bytes[start..end], values);
        }
        let words = short(bytes, start, len);
        let hash = (words[0] ^ words[1].rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (hash >> (64 - SLOTS.trailing_zeros())) as usize;
        let slot = self.slots[index];
        if slot.words == words && slot.len == len as u32 {
            return slot.code;
        }
        let code = self.look_up(&bytes[start..end], values);
        self.slots[index] = Slot { words, len: len as u32, code };
        code
    }

    #[cold]
    fn look_up(&mut self, value: &[u8], values: &mut Vec<String>) -> u32 {
        if let Some(code) = self.known.get(value) {
            return *code;
        }
        let code = values.len() as u32;
        values.push(String::from_utf8_lossy(value).into_owned());
        self.known.insert(value.into(), code);
        code
    }
}

/// Up to 16 bytes as two little-endian numbers, zeros behind them.
#[inline(always)]
fn short(bytes: &[u8], start: usize, len: usize) -> [u64; 2] {
    let words = |block: &[u8; SHORT]| [load8(block, 0), load8(block, 8)];
    match bytes.get(start..).and_then(|b| b.first_chunk()) {
        Some(block) => {
            let ([low, high], mask) = (words(block), FIRST_BYTES[len]);
            [low & mask[0], high & mask[1]]
        }
        None => {
            let mut block = [0; SHORT];
            block[..len].copy_from_slice(&bytes[start..start + len]);
            words(&block)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_give_the_column_back() {
        let long = "x".repeat(17);
        let mut values: Vec<Option<String>> = vec![None, Some(String::new()), Some("\0".into()), Some("\0\0".into())];
        values.extend(
            ["login", "click", "login", "abcdefghijklmnop", "abcdefghijklmnopq", &long].map(|s| Some(s.into())),
        );
        values.extend((0..5000).map(|i| Some(format!("v{}", i % 700))));
        let column = StringArray::from(values.clone());
        let mut coder = Coder::new();
        for _ in 0..2 {
            let codes = coder.encode(&column);
            let back: Vec<_> = codes.codes.iter().map(|c| codes.values.get(*c as usize).cloned()).collect();
            assert_eq!(back, values);
            let mut distinct = codes.values.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), codes.values.len());
            assert_eq!(codes.codes[0], Codes::NONE);
            assert_eq!(codes.values[..3], ["", "\0", "\0\0"]);
        }
    }
}
