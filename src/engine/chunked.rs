//! Which output formats may be streamed, and how to join their chunks.
//!
//! The engine formats every chunk of a streamed result by itself: the chunks of `Native` or `TabSeparated` can be put
//! one behind the other, those of a format with a header once the header of every later chunk is cut off, and those of
//! a document (`JSON`, `Parquet`) not at all.

/// How a format begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// No header.
    None,
    /// This many rows of text.
    Lines(usize),
    /// As lines, but a quoted field may hold line ends.
    CsvLines(usize),
    /// A count, then that many names, or names and types, each with its length in front.
    Binary { rows: usize },
}

/// Joins the chunks of one streamed result.
pub struct Joiner {
    header: Header,
    seen: Option<Vec<u8>>,
}

impl Joiner {
    /// `None` when results in `format` must be taken whole.
    pub fn new(format: &str) -> Option<Self> {
        let header = match format {
            "TabSeparated"
            | "TSV"
            | "TabSeparatedRaw"
            | "TSVRaw"
            | "Raw"
            | "CSV"
            | "JSONEachRow"
            | "JSONLines"
            | "NDJSON"
            | "JSONStringsEachRow"
            | "JSONCompactEachRow"
            | "JSONCompactStringsEachRow"
            | "RowBinary"
            | "Native"
            | "Null"
            | "LineAsString"
            | "RawBLOB" => Header::None,
            "TabSeparatedWithNames"
            | "TSVWithNames"
            | "TSVRawWithNames"
            | "TabSeparatedRawWithNames"
            | "JSONCompactEachRowWithNames"
            | "JSONCompactStringsEachRowWithNames" => Header::Lines(1),
            "TabSeparatedWithNamesAndTypes"
            | "TSVWithNamesAndTypes"
            | "TSVRawWithNamesAndTypes"
            | "TabSeparatedRawWithNamesAndTypes"
            | "JSONCompactEachRowWithNamesAndTypes"
            | "JSONCompactStringsEachRowWithNamesAndTypes" => Header::Lines(2),
            "CSVWithNames" => Header::CsvLines(1),
            "CSVWithNamesAndTypes" => Header::CsvLines(2),
            "RowBinaryWithNames" => Header::Binary { rows: 1 },
            "RowBinaryWithNamesAndTypes" => Header::Binary { rows: 2 },
            _ => return None,
        };
        Some(Self { header, seen: None })
    }

    /// What of `chunk` belongs into the result.
    pub fn join<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        match &self.seen {
            Some(header) => chunk.strip_prefix(header.as_slice()).unwrap_or(chunk),
            None => {
                self.seen = Some(chunk[..length(self.header, chunk).min(chunk.len())].to_vec());
                chunk
            }
        }
    }
}

fn length(header: Header, chunk: &[u8]) -> usize {
    match header {
        Header::None => 0,
        Header::Lines(n) => {
            chunk.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(n - 1).map_or(0, |(at, _)| at + 1)
        }
        Header::CsvLines(n) => {
            let mut quoted = false;
            let mut lines = 0;
            for (at, byte) in chunk.iter().enumerate() {
                match byte {
                    b'"' => quoted = !quoted,
                    b'\n' if !quoted => {
                        lines += 1;
                        if lines == n {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
            }
            0
        }
        Header::Binary { rows } => binary_length(rows, chunk).unwrap_or(0),
    }
}

fn binary_length(rows: usize, chunk: &[u8]) -> Option<usize> {
    let mut at = 0;
    let columns = varint(chunk, &mut at)?;
    for _ in 0..columns.checked_mul(rows)? {
        let bytes = varint(chunk, &mut at)?;
        at = at.checked_add(bytes)?;
    }
    (at <= chunk.len()).then_some(at)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(format: &str, chunks: &[&[u8]]) -> Vec<u8> {
        let mut joiner = Joiner::new(format).unwrap();
        chunks.iter().flat_map(|c| joiner.join(c).to_vec()).collect()
    }

    #[test]
    fn headers_are_kept_once() {
        assert_eq!(joined("TSV", &[b"1\n", b"1\n"]), b"1\n1\n");
        assert_eq!(joined("TSVWithNamesAndTypes", &[b"a\nUInt8\n1\n", b"a\nUInt8\n2\n"]), b"a\nUInt8\n1\n2\n");
        assert_eq!(joined("CSVWithNames", &[b"\"a\nb\"\n1\n", b"\"a\nb\"\n2\n"]), b"\"a\nb\"\n1\n2\n");
        let (one, two) = (b"\x01\x01a\x05UInt8\x07", b"\x01\x01a\x05UInt8\x08");
        assert_eq!(joined("RowBinaryWithNamesAndTypes", &[one, two]), b"\x01\x01a\x05UInt8\x07\x08");
        assert_eq!(joined("RowBinaryWithNamesAndTypes", &[b"\x01\x01a\x05UInt8"]), b"\x01\x01a\x05UInt8");
    }

    #[test]
    fn documents_are_not_streamed() {
        for format in ["JSON", "Parquet", "Pretty", "XML", "Nonsense"] {
            assert!(Joiner::new(format).is_none(), "{format}");
        }
    }
}
