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

/// How many plain string characters a block begins with (see [`string_ends`]), and whether they are all ASCII.
#[cfg(target_arch = "x86_64")] // whose baseline includes SSE2
#[inline(always)]
pub(crate) fn plain_prefix(block: &[u8; 16]) -> (usize, bool) {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    // SAFETY: every x86-64 processor has SSE2, and these instructions touch registers only.
    let (ends, high) = unsafe {
        let bytes = _mm_set_epi64x(load8(block, 8) as i64, load8(block, 0) as i64);
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(bytes, _mm_min_epu8(bytes, _mm_set1_epi8(0x1f)));
        let ends = _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash)));
        (ends as u32 | 1 << 16, _mm_movemask_epi8(bytes) as u32)
    };
    (ends.trailing_zeros() as usize, high & (ends - 1) & !ends == 0)
}

/// How many plain string characters a block begins with (see [`string_ends`]), and whether they are all ASCII.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn plain_prefix(block: &[u8; 16]) -> (usize, bool) {
    plain_prefix_by_words(block)
}

/// [`plain_prefix`] for any processor.
#[cfg_attr(target_arch = "x86_64", cfg(test))]
#[inline(always)]
fn plain_prefix_by_words(block: &[u8; 16]) -> (usize, bool) {
    let (low, high) = (load8(block, 0), load8(block, 8));
    let count = |word| string_ends(word).trailing_zeros() as usize / 8;
    let ascii = |word: u64, count: usize| match count {
        8 => word & HIGHS == 0,
        _ => word & HIGHS & ((1 << (8 * count)) - 1) == 0,
    };
    match count(low) {
        8 => (8 + count(high), ascii(low, 8) && ascii(high, count(high))),
        n => (n, ascii(low, n)),
    }
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

    #[test]
    fn prefixes_of_blocks() {
        let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
        for seed in 0..200_000u64 {
            // Bytes that are mostly plain, with the odd ones among them at every place.
            let mut block = [b'a'; 16];
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed << 17;
            for _ in 0..3 {
                random ^= random >> 29;
                random = random.wrapping_mul(0xbf58_476d_1ce4_e5b9);
                block[random as usize % 16] = (random >> 8) as u8;
            }
            let count = block.iter().take_while(|b| plain(**b)).count();
            let expected = (count, block[..count].is_ascii());
            assert_eq!(plain_prefix(&block), expected, "{block:x?}");
            assert_eq!(plain_prefix_by_words(&block), expected, "{block:x?}");
        }
    }
}
