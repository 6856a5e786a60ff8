//! Looking at eight bytes at a time (SWAR: SIMD within a register).

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The eight bytes at `at`, little-endian; the slice must reach that far.
#[inline(always)]
pub(crate) fn load8(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// High bits set where a byte is zero; exact up to and including the lowest one.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// High bits set where a byte ends a run of plain string characters: a quote, a backslash or a control character.
/// Exact up to and including the lowest one.
#[inline(always)]
pub(crate) fn string_ends(word: u64) -> u64 {
    let quote = zeros(word ^ (ONES * b'"' as u64));
    let backslash = zeros(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    quote | backslash | control
}

/// Where the run of plain string characters that begins at `from` ends: the index of the first quote, backslash or
/// control character, or the length of the slice.
pub(crate) fn plain_run_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at + 8 <= bytes.len() {
        let ends = string_ends(load8(bytes, at));
        if ends != 0 {
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let plain = |b: &u8| *b >= 0x20 && *b != b'"' && *b != b'\\';
    at + bytes[at..].iter().take_while(|b| plain(b)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_classified_at_every_place() {
        for byte in 0..=u8::MAX {
            let ends = byte < 0x20 || byte == b'"' || byte == b'\\';
            for place in 0..20 {
                for filler in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                    let mut text = [filler; 20];
                    text[place] = byte;
                    assert_eq!(plain_run_end(&text, 0), if ends { place } else { 20 }, "{byte:#x} at {place}");
                }
            }
        }
    }
}
