//! One combination of dimension values, in the form that ClickHouse takes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::plan::{DIMENSION_BYTES_MAX, OTHER};

/// The dimension values of a cell as RowBinary strings: each value's length as LEB128, then its bytes. A null value is
/// the empty string. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Combination(Arc<[u8]>);

impl Combination {
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            push_value(&mut bytes, value);
        }
        Self(bytes.into())
    }

    /// From bytes in the form described at the type; none if they are not `dimensions` values in that form.
    pub fn from_row_binary(bytes: &[u8], dimensions: usize) -> Option<Self> {
        let mut rest = bytes;
        for _ in 0..dimensions {
            take_value(&mut rest)?;
        }
        rest.is_empty().then(|| Self(bytes.into()))
    }

    pub(super) fn from_key(key: &[u8]) -> Self {
        Self(key.into())
    }

    pub fn as_row_binary(&self) -> &[u8] {
        &self.0
    }

    pub fn values(&self) -> Vec<&str> {
        let (mut rest, mut values) = (&self.0[..], Vec::new());
        while let Some(value) = take_value(&mut rest) {
            values.push(value);
        }
        values
    }
}

impl Borrow<[u8]> for Combination {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values().fmt(f)
    }
}

/// Appends a value in RowBinary form.
fn push_value(bytes: &mut Vec<u8>, value: &str) {
    let mut length = value.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(value.as_bytes());
}

/// Takes the next value off `rest`; none at its end or where it is no UTF-8 string in RowBinary form.
pub(crate) fn take_value<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (mut length, mut shift) = (0u64, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        length |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        match byte & 0x80 {
            0 => break,
            _ if shift > 35 => return None,
            _ => {}
        }
    }
    let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    std::str::from_utf8(value).ok()
}

/// Writes the key of the cell in which these values are counted while there is room for it. Returns whether that cell
/// is the overflow cell: a value that is `__other__` itself, or too long, has no other.
pub(super) fn write_key<'a>(key: &mut Vec<u8>, values: impl Iterator<Item = &'a str> + Clone) -> bool {
    key.clear();
    if values.clone().any(|v| v == OTHER || v.len() > DIMENSION_BYTES_MAX) {
        write_overflow_key(key, values.count());
        return true;
    }
    for value in values {
        push_value(key, value);
    }
    false
}

/// The overflow cell of `dimensions` dimensions: `__other__` in each.
pub(super) fn write_overflow_key(key: &mut Vec<u8>, dimensions: usize) {
    key.clear();
    for _ in 0..dimensions {
        push_value(key, OTHER);
    }
}

pub(super) fn is_overflow_key(key: &[u8]) -> bool {
    let mut rest = key;
    let mut any = false;
    while !rest.is_empty() {
        if take_value(&mut rest) != Some(OTHER) {
            return false;
        }
        any = true;
    }
    any
}
