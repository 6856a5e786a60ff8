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

/// Where in a block a string cannot go on (see [`string_ends`]) and where there is no ASCII: one bit per byte, the
/// first byte lowest. Exact up to and including the lowest end.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn classify(block: &[u8; 16]) -> (u32, u32) {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    // SAFETY: every x86-64 processor has SSE2, and these instructions touch registers only.
    unsafe {
        let bytes = _mm_set_epi64x(load8(block, 8) as i64, load8(block, 0) as i64);
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(bytes, _mm_min_epu8(bytes, _mm_set1_epi8(0x1f)));
        let ends = _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash)));
        (ends as u32, _mm_movemask_epi8(bytes) as u32)
    }
}

/// Where in a block a string cannot go on (see [`string_ends`]) and where there is no ASCII: one bit per byte, the
/// first byte lowest. Exact up to and including the lowest end.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn classify(block: &[u8; 16]) -> (u32, u32) {
    classify_by_words(block)
}

/// [`classify`] for any processor.
#[cfg_attr(target_arch = "x86_64", cfg(test))]
#[inline(always)]
fn classify_by_words(block: &[u8; 16]) -> (u32, u32) {
    // Gathers the high bits of eight bytes: bit 8i + 7 goes to bit 56 + i, and no two products meet.
    let gather = |highs: u64| ((highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32;
    let (low, high) = (load8(block, 0), load8(block, 8));
    let both = |low: u64, high: u64| gather(low) | gather(high) << 8;
    (both(string_ends(low), string_ends(high)), both(low & HIGHS, high & HIGHS))
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
    fn blocks_are_classified() {
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
            let high = block[..count].iter().rev().fold(0, |bits, b| bits << 1 | u32::from(!b.is_ascii()));
            for (ends, high_here) in [classify(&block), classify_by_words(&block)] {
                assert_eq!((ends | 1 << 16).trailing_zeros(), count as u32, "{block:x?}");
                assert_eq!(high_here & ((1 << count) - 1), high, "{block:x?}");
            }
        }
    }
}
