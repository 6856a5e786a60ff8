//! The way that records take now, walked by many records at once: literal by literal and value by value, each for a chunk
//! of records, so that what one step needs stays in registers and one record need not wait for the one before.

use super::batch::RawBatch;
use super::bytes::Lanes;
use super::columns::ColumnSet;
use super::literal::{Literal, Step, Then};
use super::values::{self, Day, Stop};

/// Most records of a chunk: what fits the first-level cache.
const CHUNK_MAX: usize = 128;
/// Fewest, where the path fits few in a row.
const CHUNK_MIN: usize = 4;

/// A whole record's steps, of which it is known that they name each field once and every required one.
#[derive(Default)]
pub(crate) struct Path {
    pub steps: Vec<Step>,
    /// The fields that are not among the steps.
    pub missing: Vec<usize>,
    /// Whether the columns do not give back what takes this path.
    pub keeps: bool,
    chunk: usize,
}

impl Path {
    /// Reads records from `row` on into the columns, as far as they take this path; the row of the first that does not.
    #[inline(always)]
    pub fn run<L: Lanes>(
        &mut self,
        lanes: L,
        raw: &RawBatch,
        mut row: usize,
        day: &mut Day,
        columns: &mut ColumnSet,
        keep_payload: &mut [bool],
    ) -> usize {
        while row < raw.len() && !self.steps.is_empty() {
            let rows = self.chunk.clamp(CHUNK_MIN, CHUNK_MAX).min(raw.len() - row);
            let done = self.walk(lanes, raw, row, rows, day, columns, &mut keep_payload[row..row + rows]);
            for field in &self.missing {
                (row..row + done).for_each(|row| columns.set_null(*field, row));
            }
            row += done;
            if done < rows {
                self.chunk = done;
                break;
            }
            self.chunk = CHUNK_MAX.min(2 * rows);
        }
        row
    }

    /// Reads `rows` records; how many were read before the first that takes another path.
    #[allow(clippy::too_many_arguments, reason = "the state of one loop, spelled out")]
    #[inline(always)]
    fn walk<L: Lanes>(
        &self,
        lanes: L,
        raw: &RawBatch,
        row: usize,
        rows: usize,
        day: &mut Day,
        columns: &mut ColumnSet,
        keep_payload: &mut [bool],
    ) -> usize {
        let bytes = &raw.values[..];
        let ends = &raw.value_ends[row..row + rows];
        // Where the reading of each record stands.
        let mut places = [0; CHUNK_MAX];
        places[0] = raw.start(row) as u32;
        places[1..rows].copy_from_slice(&ends[..rows - 1]);
        keep_payload.fill(self.keeps);
        let mut left = rows;
        for step in &self.steps {
            let places = &mut places[..left];
            let Step { literal, then, column, .. } = step;
            left = match then {
                Then::Text => {
                    let column = &mut columns.texts[*column];
                    let offsets = &mut column.offsets[row..row + left + 1];
                    let to = offsets[0] as usize;
                    let (ends, offsets, values) = (&ends[..left], &mut offsets[1..], &mut column.values);
                    pass(lanes, literal, bytes, places, Texts { lanes, ends, offsets, to, values })
                }
                Then::Int => {
                    let column = &mut columns.longs[*column][row..row + left];
                    pass(lanes, literal, bytes, places, Ints { column })
                }
                Then::Time => {
                    let column = &mut columns.longs[*column][row..row + left];
                    let (ends, keep) = (&ends[..left], &mut keep_payload[..left]);
                    pass(lanes, literal, bytes, places, Times { ends, day, column, keep })
                }
                Then::Float => {
                    let column = &mut columns.floats[*column][row..row + left];
                    pass(lanes, literal, bytes, places, Floats { column })
                }
                Then::Bool => {
                    let column = &mut columns.bools[*column][row..row + left];
                    pass(lanes, literal, bytes, places, Bools { column })
                }
                Then::OtherText => pass(lanes, literal, bytes, places, OtherTexts { lanes, ends: &ends[..left] }),
                Then::OtherNumber => pass(lanes, literal, bytes, places, OtherNumbers { ends: &ends[..left] }),
                Then::End => pass(lanes, literal, bytes, places, Ends { ends: &ends[..left] }),
            };
        }
        left
    }
}

/// Takes records, each at its place, over a literal and the value behind it; the number of records before the first that
/// has something else there.
#[inline(always)]
fn pass<L: Lanes>(lanes: L, literal: &Literal, bytes: &[u8], places: &mut [u32], mut column: impl Column) -> usize {
    for (i, place) in places.iter_mut().enumerate() {
        let at = *place as usize;
        if !literal.stands_at(lanes, bytes, at) {
            return i;
        }
        match column.read(bytes, i, at + literal.len) {
            Ok(behind) => *place = behind as u32,
            Err(_) => return i,
        }
    }
    places.len()
}

/// What stands behind a literal in each record of a chunk, and where it goes. (Closures would do but for inlining, which
/// AVX2 depends on.)
trait Column {
    /// Reads the value that begins at `at` for record `i` of the chunk; where it ends.
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop>;
}

struct Texts<'a, L> {
    lanes: L,
    ends: &'a [u32],
    /// Where each value ends in `values`.
    offsets: &'a mut [i32],
    /// Where the next value goes.
    to: usize,
    values: &'a mut Vec<u8>,
}

impl<L: Lanes> Column for Texts<'_, L> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        let len = values::text(self.lanes, bytes, at, self.ends[i] as usize, self.to, self.values)?;
        self.to += len;
        self.offsets[i] = self.to as i32;
        Ok(at + len)
    }
}

struct Ints<'a> {
    column: &'a mut [i64],
}

impl Column for Ints<'_> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        let (value, behind) = values::int(bytes, at)?;
        self.column[i] = value;
        Ok(behind)
    }
}

struct Times<'a> {
    ends: &'a [u32],
    day: &'a mut Day,
    column: &'a mut [i64],
    keep: &'a mut [bool],
}

impl Column for Times<'_> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        let (micros, canonical, behind) = self.day.time(bytes, at, self.ends[i] as usize)?;
        self.column[i] = micros;
        self.keep[i] |= !canonical;
        Ok(behind)
    }
}

struct Floats<'a> {
    column: &'a mut [f64],
}

impl Column for Floats<'_> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        let (value, behind) = values::float(bytes, at)?;
        self.column[i] = value;
        Ok(behind)
    }
}

struct Bools<'a> {
    column: &'a mut [bool],
}

impl Column for Bools<'_> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        let (value, behind) = values::boolean(bytes, at)?;
        self.column[i] = value;
        Ok(behind)
    }
}

struct OtherTexts<'a, L> {
    lanes: L,
    ends: &'a [u32],
}

impl<L: Lanes> Column for OtherTexts<'_, L> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        values::skip_text(self.lanes, bytes, at, self.ends[i] as usize)
    }
}

struct OtherNumbers<'a> {
    ends: &'a [u32],
}

impl Column for OtherNumbers<'_> {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        values::skip_number(bytes, at, self.ends[i] as usize)
    }
}

/// The end of the record. Every byte read of a record lies before its place, so this is also the check that nothing was
/// read of the next one.
struct Ends<'a> {
    ends: &'a [u32],
}

impl Column for Ends<'_> {
    #[inline(always)]
    fn read(&mut self, _: &[u8], i: usize, at: usize) -> Result<usize, Stop> {
        if at == self.ends[i] as usize { Ok(at) } else { Err(Stop::Unknown) }
    }
}
