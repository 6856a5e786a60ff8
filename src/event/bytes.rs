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

/// Looking at 32 bytes at a time, by what the processor has for it.
pub(crate) trait Lanes: Copy {
    /// Where in a block a string cannot go on (see [`string_ends`]) and where there is no ASCII: one bit per byte, the
    /// first byte lowest. Exact up to and including the lowest end.
    fn classify(self, block: &[u8; 32]) -> (u32, u32);

    /// Whether two blocks agree in all bits that the mask has.
    fn agree(self, a: &[u8; 32], b: &[u8; 32], mask: &[u8; 32]) -> bool;
}

/// [`Lanes`] for any processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words;

impl Lanes for Words {
    #[inline(always)]
    fn classify(self, block: &[u8; 32]) -> (u32, u32) {
        // Gathers the high bits of eight bytes: bit 8i + 7 goes to bit 56 + i, and no two products meet.
        let gather = |highs: u64| ((highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32;
        let all = |of: fn(u64) -> u64| (0..4).fold(0, |bits, i| bits | gather(of(load8(block, 8 * i))) << (8 * i));
        (all(string_ends), all(|word| word & HIGHS))
    }

    #[inline(always)]
    fn agree(self, a: &[u8; 32], b: &[u8; 32], mask: &[u8; 32]) -> bool {
        let differs = |i: usize| (load8(a, 8 * i) ^ load8(b, 8 * i)) & load8(mask, 8 * i);
        differs(0) | differs(1) | differs(2) | differs(3) == 0
    }
}

/// [`Lanes`] by AVX2. A value of it is proof that the processor has the instructions.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256,
        _mm256_set1_epi8, _mm256_testz_si256, _mm256_xor_si256,
    };

    use super::{Avx2, Lanes};

    impl Avx2 {
        /// The proof, where the processor has what [`Avx2`] and its users need.
        pub fn detect() -> Option<Self> {
            let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1");
            (has && is_x86_feature_detected!("bmi2")).then_some(Self(()))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(block: &[u8; 32]) -> __m256i {
        // SAFETY: the block is 32 readable bytes, and this load needs no alignment.
        unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn classify(block: &[u8; 32]) -> (u32, u32) {
        let bytes = load(block);
        let quote = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'"' as i8));
        let backslash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\\' as i8));
        let control = _mm256_cmpeq_epi8(bytes, _mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)));
        let ends = _mm256_movemask_epi8(_mm256_or_si256(control, _mm256_or_si256(quote, backslash)));
        (ends as u32, _mm256_movemask_epi8(bytes) as u32)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn agree(a: &[u8; 32], b: &[u8; 32], mask: &[u8; 32]) -> bool {
        _mm256_testz_si256(_mm256_xor_si256(load(a), load(b)), load(mask)) != 0
    }

    impl Lanes for Avx2 {
        #[inline(always)]
        fn classify(self, block: &[u8; 32]) -> (u32, u32) {
            // SAFETY: `self` is proof that the processor has AVX2.
            unsafe { classify(block) }
        }

        #[inline(always)]
        fn agree(self, a: &[u8; 32], b: &[u8; 32], mask: &[u8; 32]) -> bool {
            // SAFETY: `self` is proof that the processor has AVX2.
            unsafe { agree(a, b, mask) }
        }
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

    fn check_lanes(lanes: impl Lanes) {
        let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
        for seed in 0..200_000u64 {
            // Bytes that are mostly plain, with odd ones among them at every place.
            let mut block = [b'a'; 32];
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed << 17;
            for _ in 0..3 {
                random ^= random >> 29;
                random = random.wrapping_mul(0xbf58_476d_1ce4_e5b9);
                block[random as usize % 32] = (random >> 8) as u8;
            }
            let count = block.iter().take_while(|b| plain(**b)).count();
            let high = block[..count].iter().rev().fold(0, |bits, b| bits << 1 | u64::from(!b.is_ascii()));
            let (ends, high_here) = lanes.classify(&block);
            assert_eq!((u64::from(ends) | 1 << 32).trailing_zeros(), count as u32, "{block:x?}");
            assert_eq!(u64::from(high_here) & ((1 << count) - 1), high, "{block:x?}");

            let (mut other, mut mask) = (block, [0xff; 32]);
            assert!(lanes.agree(&block, &other, &mask));
            let place = random as usize >> 20 & 31;
            other[place] ^= 1 << (random >> 40 & 7);
            assert!(!lanes.agree(&block, &other, &mask));
            mask[place] = 0;
            assert!(lanes.agree(&block, &other, &mask));
        }
    }

    #[test]
    fn blocks_by_words() {
        check_lanes(Words);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn blocks_by_avx2() {
        if let Some(avx2) = Avx2::detect() {
            check_lanes(avx2);
        }
    }
}
