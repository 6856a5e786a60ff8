//! The scanner: a short cut for records that are written like others before them.
//!
//! It knows the bytes that stand between two values, and before the first and behind the last one, from records that
//! the general parser accepted: with `{"id":"a","n":1}` it learns `{"id":"`, `","n":` and `}`. Such a literal is made of
//! whole JSON tokens, and of keys that the parser has looked up, so a record that is literals and plain values in turn
//! is the JSON object that the parser would find in it: each key once, no required one missing. Whatever else it meets
//! (an escape, a null where none was, another order, white space, a number out of the common range) it leaves to the
//! general parser, which alone refuses records.

use super::batch::RawBatch;
#[cfg(target_arch = "x86_64")]
use super::bytes::Avx2;
use super::bytes::{Lanes, Words, load8};
use super::columns::{Cell, ColumnSet, Place, TextColumn};
use super::general::Span;
use super::schema::Schema;
use super::timestamp::{self, MICROS_PER_SECOND};
use crate::config::FieldType;

/// Most fields that the scanner can keep apart; a pipeline with more goes to the general parser altogether.
const MAX_FIELDS: usize = 64;
/// Literals remembered behind the value of one field.
const MAX_LITERALS: usize = 8;
/// Bytes looked at without asking whether they are there; [`super::PADDING`] sees to it.
const WINDOW: usize = super::PADDING;

/// Learns how records are written, and reads those that are.
pub(crate) struct Scanner {
    /// What may follow the value of each field; the last entry is what a record may begin with.
    after: Vec<Node>,
    /// The way that records take now; empty while they take turns.
    path: Path,
    /// Bits of the required fields.
    required: u64,
    /// Bits of all fields.
    all: u64,
    keep_always: bool,
    day: Day,
    #[cfg(target_arch = "x86_64")]
    avx2: Option<Avx2>,
}

/// What has been seen behind the value of one field.
struct Node {
    /// What fitted last.
    first: Step,
    others: Vec<Step>,
}

/// A whole record's steps, of which it is known that they name each field once and every required one.
#[derive(Default)]
struct Path {
    steps: Vec<Step>,
    /// Bits of the fields that are not among the steps.
    missing: u64,
    /// Whether a literal says that a field is null.
    has_null: bool,
}

/// A literal and what stands behind it.
#[derive(Clone)]
struct Step {
    literal: Literal,
    then: Then,
    /// The index of the field whose value follows; at the end of the record none.
    field: usize,
    /// The index of its column among those of its type.
    column: usize,
    /// The field's bit.
    bit: u64,
    /// Bits of the fields that the literal says are null.
    nulls: u64,
}

/// What stands behind a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Text,
    Int,
    Float,
    Bool,
    Time,
    End,
}

/// Why the short cut ends before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is none left.
    Done,
    /// It has a value that the general parser must look at.
    Odd,
    /// It is written in a way not learned yet.
    Unknown,
}

/// The bytes between two values.
#[derive(Clone, PartialEq, Eq)]
struct Literal {
    len: usize,
    /// Its first 32 bytes, zeros behind them, with a mask that leaves out what lies behind its end.
    head: [u8; 32],
    mask: [u8; 32],
    /// What is longer.
    rest: Box<[u8]>,
}

/// The day that was met last, as written with its `T`, and its first microsecond.
struct Day {
    /// Bytes 0 to 8 and 3 to 11 of the timestamp.
    words: (u64, u64),
    start: i64,
}

impl Scanner {
    pub fn new(schema: &Schema) -> Self {
        let fields = schema.len();
        let bit = |i: usize| if i < MAX_FIELDS { 1 << i } else { 0 };
        let required = schema.fields.iter().enumerate().filter(|(_, f)| f.required).map(|(i, _)| bit(i));
        Self {
            after: (0..=fields).map(|_| Node { first: Step::never(), others: Vec::new() }).collect(),
            path: Path::default(),
            required: required.fold(0, |bits, bit| bits | bit),
            all: (0..fields).fold(0, |bits, i| bits | bit(i)),
            keep_always: schema.keep_always,
            day: Day { words: (0, 0), start: 0 },
            #[cfg(target_arch = "x86_64")]
            avx2: Avx2::detect(),
        }
    }

    /// Learns from a record that the general parser accepted and whose every member is among `spans`.
    pub fn learn(&mut self, record: &[u8], spans: &[Span], columns: &ColumnSet) {
        let start = self.after.len() - 1;
        if start > MAX_FIELDS {
            return;
        }
        let (mut node, mut from, mut nulls) = (start, 0, 0);
        for span in spans {
            if span.null {
                nulls |= 1 << span.field;
                continue;
            }
            let Place { kind, index } = columns.places[span.field];
            let then = match kind {
                FieldType::String => Then::Text,
                FieldType::Int => Then::Int,
                FieldType::Float => Then::Float,
                FieldType::Bool => Then::Bool,
                FieldType::Timestamp => Then::Time,
            };
            let literal = Literal::new(&record[from..span.range.start]);
            let step = Step { literal, then, field: span.field, column: index, bit: 1 << span.field, nulls };
            self.after[node].learn(step);
            (node, from, nulls) = (span.field, span.range.end, 0);
        }
        let literal = Literal::new(&record[from..]);
        self.after[node].learn(Step { literal, then: Then::End, field: start, column: 0, bit: 0, nulls });
    }

    /// Reads records from `row` on into the columns until it meets one that it cannot read: that one's row, and why.
    /// What it has written into that row is void.
    pub fn run(
        &mut self,
        raw: &RawBatch,
        row: usize,
        columns: &mut ColumnSet,
        keep_payload: &mut [bool],
    ) -> (usize, Stop) {
        #[cfg(target_arch = "x86_64")]
        if let Some(lanes) = self.avx2 {
            // SAFETY: `lanes` is proof that the processor has these instructions.
            return unsafe { self.run_avx2(lanes, raw, row, columns, keep_payload) };
        }
        self.run_with(Words, raw, row, columns, keep_payload)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn run_avx2(
        &mut self,
        lanes: Avx2,
        raw: &RawBatch,
        row: usize,
        columns: &mut ColumnSet,
        keep_payload: &mut [bool],
    ) -> (usize, Stop) {
        self.run_with(lanes, raw, row, columns, keep_payload)
    }

    #[inline(always)]
    fn run_with<L: Lanes>(
        &mut self,
        lanes: L,
        raw: &RawBatch,
        row: usize,
        columns: &mut ColumnSet,
        keep_payload: &mut [bool],
    ) -> (usize, Stop) {
        let mut start = if row == 0 { 0 } else { raw.value_ends[row - 1] as usize };
        for (row, end) in raw.value_ends.iter().enumerate().skip(row) {
            let end = *end as usize;
            let reader = Reader { lanes, bytes: &raw.values, end, row };
            let mut read = reader.straight(&self.path, &mut self.day, start, columns);
            if read.is_err() {
                read = self.careful(reader, start, columns);
            }
            match read {
                Ok(canonical) => keep_payload[row] = self.keep_always || !canonical,
                Err(stop) => return (row, stop),
            }
            start = end;
        }
        (raw.len(), Stop::Done)
    }

    /// Reads a record along whatever has been learned, and whether its columns give it back.
    #[inline(never)]
    fn careful<L: Lanes>(&mut self, reader: Reader<L>, start: usize, columns: &mut ColumnSet) -> Result<bool, Stop> {
        let mut at = start;
        let mut node = self.after.len() - 1;
        let (mut seen, mut nulls, mut canonical, mut turned) = (0, 0, true, false);
        loop {
            turned |= self.after[node].turn(reader, at)?;
            let step = &self.after[node].first;
            at += step.literal.len;
            nulls |= step.nulls;
            if step.then == Then::End {
                break;
            }
            if seen & step.bit != 0 {
                return Err(Stop::Odd);
            }
            seen |= step.bit;
            node = step.field;
            at = reader.value(step, at, &mut self.day, columns, &mut canonical)?;
        }
        // Every byte read lies before `at`, so this is also the check that nothing was read of the next record.
        if at != reader.end {
            return Err(Stop::Unknown);
        }
        if seen & self.required != self.required || seen & nulls != 0 {
            return Err(Stop::Odd);
        }
        let (missing, has_null) = (self.all & !seen, nulls != 0);
        reader.set_missing(missing, columns);
        if turned {
            self.path.steps.clear();
        } else {
            self.path = Path { steps: self.way(), missing, has_null };
        }
        Ok(canonical && !has_null)
    }

    /// The steps from the start to the end that fitted last.
    fn way(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = vec![self.after[self.after.len() - 1].first.clone()];
        while let Some(step) = steps.last()
            && step.then != Then::End
        {
            steps.push(self.after[step.field].first.clone());
        }
        steps
    }
}

impl Node {
    /// Puts the step first whose literal stands at `at`; true if it was another one before.
    #[inline(always)]
    fn turn<L: Lanes>(&mut self, reader: Reader<L>, at: usize) -> Result<bool, Stop> {
        if reader.meets(&self.first.literal, at) {
            return Ok(false);
        }
        let fit = self.others.iter().position(|s| reader.meets(&s.literal, at)).ok_or(Stop::Unknown)?;
        std::mem::swap(&mut self.first, &mut self.others[fit]);
        Ok(true)
    }

    fn learn(&mut self, step: Step) {
        let known = |s: &Step| s.field == step.field && s.literal == step.literal;
        if known(&self.first) || self.others.iter().any(known) {
            return;
        }
        self.others.truncate(MAX_LITERALS - 2);
        self.others.insert(0, std::mem::replace(&mut self.first, step));
    }
}

impl Step {
    /// A step that fits nowhere: outside of its strings no JSON contains a zero byte.
    fn never() -> Self {
        Self { literal: Literal::new(&[0]), then: Then::End, field: usize::MAX, column: 0, bit: 0, nulls: 0 }
    }
}

impl Literal {
    fn new(bytes: &[u8]) -> Self {
        let (mut head, mut mask) = ([0; 32], [0; 32]);
        let first = bytes.len().min(32);
        head[..first].copy_from_slice(&bytes[..first]);
        mask[..first].fill(0xff);
        Self { len: bytes.len(), head, mask, rest: bytes[first..].into() }
    }
}

/// Reads one record.
#[derive(Clone, Copy)]
struct Reader<'a, L> {
    lanes: L,
    /// All values of the batch and the padding behind them.
    bytes: &'a [u8],
    /// Where the record ends.
    end: usize,
    row: usize,
}

impl<L: Lanes> Reader<'_, L> {
    /// Reads a record along a path; whether its columns give it back.
    #[inline(always)]
    fn straight(self, path: &Path, day: &mut Day, start: usize, columns: &mut ColumnSet) -> Result<bool, Stop> {
        let (mut at, mut canonical) = (start, !path.has_null);
        for step in &path.steps {
            if !self.meets(&step.literal, at) {
                return Err(Stop::Unknown);
            }
            at += step.literal.len;
            if step.then == Then::End {
                break;
            }
            at = self.value(step, at, day, columns, &mut canonical)?;
        }
        // As in `careful`; a path without steps ends here, for no record that it would fit is empty.
        if at != self.end || at == start {
            return Err(Stop::Unknown);
        }
        if path.missing != 0 {
            self.set_missing(path.missing, columns);
        }
        Ok(canonical)
    }

    /// Reads the value of a step's field into its column; where it ends.
    #[inline(always)]
    fn value(
        self,
        step: &Step,
        at: usize,
        day: &mut Day,
        columns: &mut ColumnSet,
        canonical: &mut bool,
    ) -> Result<usize, Stop> {
        match step.then {
            Then::Text => self.text(at, &mut columns.texts[step.column]),
            Then::Int => {
                let (value, behind) = int(self.bytes, at)?;
                columns.longs[step.column][self.row] = value;
                Ok(behind)
            }
            Then::Time => {
                let (micros, as_usual, behind) = day.time(self.bytes, at, self.end)?;
                columns.longs[step.column][self.row] = micros;
                *canonical &= as_usual;
                Ok(behind)
            }
            Then::Float => {
                let (value, behind) = float(self.bytes, at)?;
                columns.floats[step.column][self.row] = value;
                Ok(behind)
            }
            Then::Bool => {
                let (value, behind) = boolean(self.bytes, at)?;
                columns.bools[step.column][self.row] = value;
                Ok(behind)
            }
            Then::End => Ok(at),
        }
    }

    fn set_missing(self, mut missing: u64, columns: &mut ColumnSet) {
        while missing != 0 {
            columns.set(missing.trailing_zeros() as usize, self.row, Cell::Null);
            missing &= missing - 1;
        }
    }

    /// Whether a literal stands at `at`.
    #[inline(always)]
    fn meets(self, literal: &Literal, at: usize) -> bool {
        let Some(window) = window(self.bytes, at) else { return false };
        let head = window.first_chunk().is_some_and(|head| self.lanes.agree(head, &literal.head, &literal.mask));
        head && (literal.len <= 32 || self.bytes[at + 32..].starts_with(&literal.rest))
    }

    /// Copies the string that begins at `at` into the column; the index of its closing quote.
    #[inline(always)]
    fn text(self, at: usize, column: &mut TextColumn) -> Result<usize, Stop> {
        let from = column.offsets[self.row] as usize;
        let window = window(self.bytes, at).ok_or(Stop::Odd)?;
        let Some(room) = column.values.get_mut(from..).and_then(|v| v.first_chunk_mut::<WINDOW>()) else {
            return self.long_text(at, column);
        };
        // Two blocks hold the common string.
        let (first, second) = halves(window);
        room[..32].copy_from_slice(first);
        let (mut ends, mut high) = self.lanes.classify(first);
        let mut len = 0;
        if ends == 0 {
            if high != 0 {
                return self.long_text(at, column);
            }
            room[32..].copy_from_slice(second);
            (ends, high) = self.lanes.classify(second);
            len = 32;
        }
        if ends == 0 || high & (ends - 1) & !ends != 0 {
            return self.long_text(at, column);
        }
        len += ends.trailing_zeros() as usize;
        if window[len] != b'"' {
            return Err(Stop::Odd);
        }
        column.offsets[self.row + 1] = (from + len) as i32;
        Ok(at + len)
    }

    /// [`Reader::text`] for a string of any length and script.
    #[inline(never)]
    fn long_text(self, at: usize, column: &mut TextColumn) -> Result<usize, Stop> {
        let mut quote = at;
        loop {
            let window = window(self.bytes, quote).ok_or(Stop::Odd)?;
            let (ends, _) = self.lanes.classify(halves(window).0);
            if ends != 0 {
                quote += ends.trailing_zeros() as usize;
                break;
            }
            quote += 32;
            if quote >= self.end {
                return Err(Stop::Odd);
            }
        }
        let text = &self.bytes[at..quote];
        if self.bytes[quote] != b'"' || std::str::from_utf8(text).is_err() {
            return Err(Stop::Odd);
        }
        column.set(self.row, text);
        Ok(quote)
    }
}

/// The bytes from `at` on; that they are there is what the padding is for.
#[inline(always)]
fn window(bytes: &[u8], at: usize) -> Option<&[u8; WINDOW]> {
    bytes.get(at..)?.first_chunk()
}

fn halves(window: &[u8; WINDOW]) -> (&[u8; 32], &[u8; 32]) {
    // A window is two blocks long, so both are there.
    match (window.first_chunk(), window.last_chunk()) {
        (Some(first), Some(second)) => (first, second),
        _ => (&[0; 32], &[0; 32]),
    }
}

/// High bits set where a byte is no digit.
#[inline(always)]
fn no_digits(word: u64) -> u64 {
    let value = word ^ 0x3030_3030_3030_3030;
    (value.wrapping_add(0x7676_7676_7676_7676) | value) & 0x8080_8080_8080_8080
}

/// The number that eight digits stand for.
#[inline(always)]
fn eight_digits(word: u64) -> u64 {
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(10 * 256 + 1) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(100 * 65_536 + 1) >> 16;
    (fours & 0x0000_ffff_0000_ffff).wrapping_mul(10_000 * 4_294_967_296 + 1) >> 32
}

/// Digits from `at` on, 18 at most: their number, and where they end.
#[inline(always)]
fn digits(bytes: &[u8], at: usize) -> Result<(u64, usize), Stop> {
    let (mut value, mut end) = (0, at);
    loop {
        let word = load8(bytes, end);
        let count = no_digits(word).trailing_zeros() as usize / 8;
        if count < 8 {
            // The digits moved to the end of the word, zeros before them; a shift by all 64 bits leaves none.
            let moved = word.checked_shl(64 - 8 * count as u32).unwrap_or(0);
            end += count;
            if end - at > 18 {
                return Err(Stop::Odd);
            }
            return Ok((value * POWERS[count] + eight_digits(moved), end));
        }
        end += 8;
        if end - at > 16 {
            return Err(Stop::Odd);
        }
        value = value * 100_000_000 + eight_digits(word);
    }
}

const POWERS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

#[inline(always)]
fn int(bytes: &[u8], at: usize) -> Result<(i64, usize), Stop> {
    let window = window(bytes, at).ok_or(Stop::Odd)?;
    let word = load8(window, 0);
    let count = no_digits(word).trailing_zeros() / 8;
    // The common case: one to seven digits.
    if count.wrapping_sub(1) < 7 && (window[0] != b'0' || count == 1) {
        return Ok((eight_digits(word << (64 - 8 * count)) as i64, at + count as usize));
    }
    long_int(bytes, at)
}

#[cold]
fn long_int(bytes: &[u8], at: usize) -> Result<(i64, usize), Stop> {
    let negative = bytes[at] == b'-';
    let from = at + usize::from(negative);
    let (value, end) = digits(bytes, from)?;
    match end - from {
        0 => return Err(Stop::Unknown),
        // `-0` and `01` are for the general parser.
        1 if !negative || value != 0 => {}
        _ if bytes[from] != b'0' => {}
        _ => return Err(Stop::Odd),
    }
    Ok((if negative { -(value as i64) } else { value as i64 }, end))
}

/// A number of 15 digits at most and without exponent: a quotient of two integers that a double holds exactly, and
/// therefore the double nearest to it.
#[inline(always)]
fn float(bytes: &[u8], at: usize) -> Result<(f64, usize), Stop> {
    let negative = bytes[at] == b'-';
    let from = at + usize::from(negative);
    let (whole, mut end) = digits(bytes, from)?;
    let whole_digits = end - from;
    if whole_digits == 0 {
        return Err(Stop::Unknown);
    }
    let leading_zero = bytes[from] == b'0' && whole_digits > 1;
    let (mut fraction, mut fraction_digits) = (0, 0);
    if bytes[end] == b'.' {
        let point = end + 1;
        (fraction, end) = digits(bytes, point)?;
        fraction_digits = end - point;
        if fraction_digits == 0 {
            return Err(Stop::Odd);
        }
    }
    if leading_zero || whole_digits + fraction_digits > 15 || matches!(bytes[end], b'e' | b'E') {
        return Err(Stop::Odd);
    }
    let scale = 10u64.pow(fraction_digits as u32);
    let value = (whole * scale + fraction) as f64 / scale as f64;
    Ok((if negative { -value } else { value }, end))
}

#[inline(always)]
fn boolean(bytes: &[u8], at: usize) -> Result<(bool, usize), Stop> {
    let word = load8(bytes, at);
    if word as u32 == u32::from_le_bytes(*b"true") {
        Ok((true, at + 4))
    } else if word & 0xff_ffff_ffff == u64::from_le_bytes(*b"false\0\0\0") {
        Ok((false, at + 5))
    } else {
        Err(Stop::Unknown)
    }
}

impl Day {
    /// The timestamp that begins at `at`: its microseconds, whether they give its text back, and where it ends.
    #[inline(always)]
    fn time(&mut self, bytes: &[u8], at: usize, end: usize) -> Result<(i64, bool, usize), Stop> {
        let window = window(bytes, at).ok_or(Stop::Odd)?;
        let words = (load8(window, 0), load8(window, 3));
        if window[19] == b'"'
            && (words == self.words || self.turn(window, words))
            && let Some(second) = second_of_day(load8(window, 11))
        {
            return Ok((self.start + second * MICROS_PER_SECOND, true, at + 19));
        }
        odd_time(bytes, at, end)
    }

    /// Goes over to another day; false if it is none.
    #[cold]
    fn turn(&mut self, window: &[u8; WINDOW], words: (u64, u64)) -> bool {
        let start = window.first_chunk().and_then(timestamp::day_start);
        match start {
            Some(start) if window[10] == b'T' => {
                *self = Day { words, start };
                true
            }
            _ => false,
        }
    }
}

/// A timestamp with a fraction or a zone, if it is one.
#[inline(never)]
fn odd_time(bytes: &[u8], at: usize, end: usize) -> Result<(i64, bool, usize), Stop> {
    let rest = bytes.get(at..end).ok_or(Stop::Odd)?;
    let len = rest.iter().take(64).position(|b| *b == b'"').ok_or(Stop::Odd)?;
    let time = timestamp::parse(&rest[..len]).map_err(|_| Stop::Odd)?;
    Ok((time.micros, time.canonical, at + len))
}

/// The second that `HH:MM:SS` names.
#[inline(always)]
fn second_of_day(word: u64) -> Option<i64> {
    let value = word ^ u64::from_le_bytes(*b"00:00:00");
    // Added to a byte, 128 less one more than the greatest it may be sets its high bit if it is greater.
    let excess = u64::from_le_bytes([0x7d, 0x76, 0x7f, 0x7a, 0x76, 0x7f, 0x7a, 0x76]);
    if (value.wrapping_add(excess) | value) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let digit = |i: u32| (value >> (8 * i)) as i64 & 0xf;
    let hour = digit(0) * 10 + digit(1);
    let second = hour * 3600 + (digit(3) * 10 + digit(4)) * 60 + digit(6) * 10 + digit(7);
    (hour <= 23).then_some(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text with the padding that the scanner needs.
    fn padded(text: &str) -> Vec<u8> {
        [text.as_bytes(), &[0; WINDOW]].concat()
    }

    #[test]
    fn integers() {
        for (text, expected) in [
            ("0,", Some(0)),
            ("7}", Some(7)),
            ("-7 ", Some(-7)),
            ("12345678,", Some(12_345_678)),
            ("123456789,", Some(123_456_789)),
            ("1234567890123456,", Some(1_234_567_890_123_456)),
            ("-999999999999999999,", Some(-999_999_999_999_999_999)),
            ("1234567890123456789,", None),
            ("12345678901234567890123456,", None),
            ("00,", None),
            ("012345678901,", None),
            ("-0,", None),
            ("-,", None),
            ("x", None),
        ] {
            let digits = text.trim_end_matches([',', '}', ' ']).len();
            assert_eq!(int(&padded(text), 0).ok(), expected.map(|v| (v, digits)), "{text}");
        }
    }

    #[test]
    fn floats() {
        for (text, short) in [
            ("0", true),
            ("-0.0", true),
            ("1.5", true),
            ("0.1", true),
            ("-123456.789012345", true),
            ("999999999999999", true),
            ("0.00000000000001", true),
            ("9999999999999999", false),
            ("1e3", false),
            ("1.", false),
            ("01.5", false),
            (".5", false),
            ("-", false),
        ] {
            let read = float(&padded(&format!("{text},")), 0).ok();
            let expected = short.then(|| (text.parse::<f64>().expect("a number").to_bits(), text.len()));
            assert_eq!(read.map(|(v, end)| (v.to_bits(), end)), expected, "{text}");
        }
    }

    #[test]
    fn every_second_of_a_day_and_nothing_near_it() {
        for hour in 0..100 {
            for minute in 0..100 {
                for second in 0..100 {
                    let text = format!("{hour:02}:{minute:02}:{second:02}");
                    let ok = hour < 24 && minute < 60 && second < 60;
                    let expected = ok.then_some(hour * 3600 + minute * 60 + second);
                    assert_eq!(second_of_day(load8(text.as_bytes(), 0)), expected, "{text}");
                }
            }
        }
        for place in 0..8 {
            for byte in 0..=u8::MAX {
                let mut text = *b"12:34:56";
                text[place] = byte;
                let ok = if matches!(place, 2 | 5) { byte == b':' } else { byte.is_ascii_digit() };
                if !ok {
                    assert_eq!(second_of_day(load8(&text, 0)), None, "{byte:#x} at {place}");
                }
            }
        }
    }
}
