//! The bytes between two values, and what stands behind them.

use super::bytes::Lanes;
use super::values::{halves, window};

/// The bytes between two values: whole JSON tokens but for the quotes around strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Literal {
    pub len: usize,
    /// Its first 32 bytes, zeros behind them, with a mask that leaves out what lies behind its end.
    head: [u8; 32],
    mask: [u8; 32],
    /// What is longer.
    rest: Box<[u8]>,
}

/// A literal and what stands behind it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub literal: Literal,
    pub then: Then,
    /// The node to go on from: the index of the field whose value follows, or one made for an unknown key.
    pub node: usize,
    /// The index of its column among those of its type.
    pub column: usize,
    /// The field's bit.
    pub bit: u64,
    /// Bits of the fields that the literal says are null.
    pub nulls: u64,
    /// Whether the columns do not give this part of the record back: it says null, or has an unknown key.
    pub keeps: bool,
}

/// What stands behind a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Text,
    Int,
    Float,
    Bool,
    Time,
    /// A string under an unknown key.
    OtherText,
    /// A number under an unknown key.
    OtherNumber,
    End,
}

impl Literal {
    pub fn new(bytes: &[u8]) -> Self {
        let (mut head, mut mask) = ([0; 32], [0; 32]);
        let first = bytes.len().min(32);
        head[..first].copy_from_slice(&bytes[..first]);
        mask[..first].fill(0xff);
        Self { len: bytes.len(), head, mask, rest: bytes[first..].into() }
    }

    /// Whether `other` is longer and begins with this.
    pub fn begins(&self, other: &Literal) -> bool {
        let bytes = |l: &Literal| [&l.head[..l.len.min(32)], &l.rest].concat();
        self.len < other.len && bytes(other).starts_with(&bytes(self))
    }

    /// Whether it stands in `bytes` at `at`.
    #[inline(always)]
    pub fn stands_at<L: Lanes>(&self, lanes: L, bytes: &[u8], at: usize) -> bool {
        let Some(window) = window(bytes, at) else { return false };
        lanes.agree(halves(window).0, &self.head, &self.mask)
            && (self.len <= 32 || bytes[at + 32..].starts_with(&self.rest))
    }
}

impl Step {
    /// A step that fits nowhere: outside of its strings no JSON contains a zero byte.
    pub fn never() -> Self {
        Self {
            literal: Literal::new(&[0]),
            then: Then::End,
            node: usize::MAX,
            column: 0,
            bit: 0,
            nulls: 0,
            keeps: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bytes::Words;
    use super::super::values::WINDOW;
    use super::*;

    #[test]
    fn a_literal_of_any_length_is_found_and_nothing_near_it() {
        let text: Vec<u8> = (0..100).map(|i| b'a' + i % 26).collect();
        let padded = [&text[..], &[0; WINDOW]].concat();
        for len in 0..text.len() {
            let literal = Literal::new(&text[..len]);
            assert!(literal.stands_at(Words, &padded, 0), "{len}");
            assert!(!literal.begins(&literal), "{len}");
            assert!(literal.stands_at(Words, &[b"xx", &padded[..]].concat(), 2), "{len}");
            for place in 0..len {
                let mut other = padded.clone();
                other[place] ^= 0x20;
                assert!(!literal.stands_at(Words, &other, 0), "{len}, {place}");
                assert!(Literal::new(&text[..place]).begins(&literal), "{len}, {place}");
                assert!(!Literal::new(&other[..len]).begins(&Literal::new(&text)), "{len}, {place}");
            }
        }
    }
}
