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
use super::bytes::{Lanes, Words};
use super::columns::{ColumnSet, Place};
use super::general::{Span, SpanOf};
use super::literal::{Literal, Step, Then};
use super::path::Path;
use super::schema::Schema;
use super::values::{self, Day, Stop};
use crate::config::FieldType;

/// Most fields that the scanner can keep apart; a pipeline with more goes to the general parser altogether.
const MAX_FIELDS: usize = 64;
/// Literals remembered behind the value of one field.
const MAX_LITERALS: usize = 8;
/// Nodes at which the scanner forgets what it has learned: only unknown keys that are never the same make so many.
const MAX_NODES: usize = 512;
/// Records in a row that must go another way than the path before it is laid anew.
const CALM: u32 = 4;

/// Learns how records are written, and reads those that are.
pub(crate) struct Scanner {
    /// What may follow the value of each field; then what a record may begin with; then what may follow the value of an
    /// unknown key, one node for each place where one was met.
    after: Vec<Node>,
    fields: usize,
    path: Path,
    /// Records in a row that went one way which is not the path.
    calm: u32,
    /// Bits of the required fields.
    required: u64,
    /// Bits of all fields.
    all: u64,
    day: Day,
    #[cfg(target_arch = "x86_64")]
    avx2: Option<Avx2>,
}

/// What has been seen behind the value of one field.
struct Node {
    /// What fitted last.
    first: Step,
    others: Vec<Step>,
    /// Whether one literal begins with another, as `,"n":null,"m":` with `,"n":`; then the longest that fits is meant.
    nested: bool,
}

impl Scanner {
    pub fn new(schema: &Schema) -> Self {
        let fields = schema.len();
        let bit = |i: usize| if i < MAX_FIELDS { 1 << i } else { 0 };
        let required = schema.fields.iter().enumerate().filter(|(_, f)| f.required).map(|(i, _)| bit(i));
        Self {
            fields,
            after: Self::nodes(fields),
            path: Path::default(),
            calm: 0,
            required: required.fold(0, |bits, bit| bits | bit),
            all: (0..fields).fold(0, |bits, i| bits | bit(i)),
            day: Day::default(),
            #[cfg(target_arch = "x86_64")]
            avx2: Avx2::detect(),
        }
    }

    /// Learns from a record that the general parser accepted and whose every member is among `spans`.
    pub fn learn(&mut self, record: &[u8], spans: &[Span], columns: &ColumnSet) {
        if self.fields > MAX_FIELDS {
            return;
        }
        if self.after.len() > MAX_NODES {
            self.after = Self::nodes(self.fields);
        }
        let (mut node, mut from, mut nulls, mut keeps) = (self.start(), 0, 0, false);
        for Span { of, range } in spans {
            let mut step = Step { nulls, keeps, ..Step::never() };
            match of {
                SpanOf::Null(field) => {
                    (nulls, keeps) = (nulls | 1 << field, true);
                    continue;
                }
                SpanOf::OtherWord => {
                    keeps = true;
                    continue;
                }
                SpanOf::OtherText => (step.then, step.keeps) = (Then::OtherText, true),
                SpanOf::OtherNumber => (step.then, step.keeps) = (Then::OtherNumber, true),
                SpanOf::Field(field) => {
                    let Place { kind, index } = columns.places[*field];
                    step.then = match kind {
                        FieldType::String => Then::Text,
                        FieldType::Int => Then::Int,
                        FieldType::Float => Then::Float,
                        FieldType::Bool => Then::Bool,
                        FieldType::Timestamp => Then::Time,
                    };
                    (step.node, step.column, step.bit) = (*field, index, 1 << field);
                }
            }
            step.literal = Literal::new(&record[from..range.start]);
            node = self.add(node, step);
            (from, nulls, keeps) = (range.end, 0, false);
        }
        let literal = Literal::new(&record[from..]);
        self.add(node, Step { literal, nulls, keeps, ..Step::never() });
    }

    /// Adds a step behind a node, unless it is known; the node that it leads to.
    fn add(&mut self, node: usize, mut step: Step) -> usize {
        if let Some(known) = self.after[node].find(&step) {
            return known.node;
        }
        if matches!(step.then, Then::OtherText | Then::OtherNumber) {
            step.node = self.after.len();
            self.after.push(Node::new());
        }
        let next = step.node;
        self.after[node].learn(step);
        next
    }

    /// The node of what a record may begin with.
    fn start(&self) -> usize {
        self.fields
    }

    fn nodes(fields: usize) -> Vec<Node> {
        (0..=fields).map(|_| Node::new()).collect()
    }

    /// Reads records from `row` on into the columns until it meets one that it cannot read: that one's row, and why.
    /// What it has written into that row is void. The columns alone do not give back the rows that it marks in
    /// `keep_payload`.
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
        mut row: usize,
        columns: &mut ColumnSet,
        keep_payload: &mut [bool],
    ) -> (usize, Stop) {
        loop {
            let before = row;
            row = self.path.run(lanes, raw, row, &mut self.day, columns, keep_payload);
            if row > before {
                self.calm = 0;
            }
            if row == raw.len() {
                return (row, Stop::Done);
            }
            match self.careful(lanes, raw, row, columns) {
                Ok(keep) => keep_payload[row] = keep,
                Err(stop) => return (row, stop),
            }
            row += 1;
        }
    }

    /// Reads a record along whatever has been learned; whether its bytes must be kept.
    #[inline(never)]
    fn careful<L: Lanes>(
        &mut self,
        lanes: L,
        raw: &RawBatch,
        row: usize,
        columns: &mut ColumnSet,
    ) -> Result<bool, Stop> {
        let bytes = &raw.values[..];
        let end = raw.value_ends[row] as usize;
        let mut at = raw.start(row);
        let mut node = self.start();
        let (mut seen, mut nulls, mut keep, mut turned) = (0, 0, false, false);
        loop {
            turned |= self.after[node].turn(lanes, bytes, at)?;
            let step = &self.after[node].first;
            at += step.literal.len;
            nulls |= step.nulls;
            keep |= step.keeps;
            if seen & step.bit != 0 {
                return Err(Stop::Odd);
            }
            seen |= step.bit;
            node = step.node;
            match step.then {
                Then::Text => {
                    let column = &mut columns.texts[step.column];
                    let to = column.offsets[row] as usize;
                    let len = values::text(lanes, bytes, at, end, to, &mut column.values)?;
                    column.offsets[row + 1] = (to + len) as i32;
                    at += len;
                }
                Then::Int => (columns.longs[step.column][row], at) = values::int(bytes, at)?,
                Then::Float => (columns.floats[step.column][row], at) = values::float(bytes, at)?,
                Then::Bool => (columns.bools[step.column][row], at) = values::boolean(bytes, at)?,
                Then::Time => {
                    let canonical;
                    (columns.longs[step.column][row], canonical, at) = self.day.time(bytes, at, end)?;
                    keep |= !canonical;
                }
                Then::OtherText => at = values::skip_text(lanes, bytes, at, end)?,
                Then::OtherNumber => at = values::skip_number(bytes, at, end)?,
                Then::End => break,
            }
        }
        // Every byte read lies before `at`, so this is also the check that nothing was read of the next record.
        if at != end {
            return Err(Stop::Unknown);
        }
        if seen & self.required != self.required || seen & nulls != 0 {
            return Err(Stop::Odd);
        }
        let missing = self.all & !seen;
        let fields = 0..self.fields;
        fields.clone().filter(|f| missing >> f & 1 == 1).for_each(|field| columns.set_null(field, row));
        self.calm = if turned { 0 } else { self.calm + 1 };
        if self.calm == CALM {
            self.calm = 0;
            self.path.missing = fields.filter(|f| missing >> f & 1 == 1).collect();
            self.lay_path();
        }
        Ok(keep)
    }

    /// Makes the path of the steps from the start to the end that fitted last. No record comes to a node twice: a field's
    /// value stands in it once, and nodes of unknown keys lead to fields or to nodes made after them.
    fn lay_path(&mut self) {
        let steps = &mut self.path.steps;
        steps.clear();
        let mut node = self.fields;
        loop {
            let step = &self.after[node].first;
            steps.push(step.clone());
            if step.then == Then::End {
                break;
            }
            node = step.node;
        }
        self.path.keeps = steps.iter().any(|s| s.keeps);
    }
}

impl Node {
    fn new() -> Self {
        Self { first: Step::never(), others: Vec::new(), nested: false }
    }

    /// Puts the step first whose literal stands at `at`; true if it was another one before.
    #[inline(always)]
    fn turn<L: Lanes>(&mut self, lanes: L, bytes: &[u8], at: usize) -> Result<bool, Stop> {
        let first_fits = self.first.literal.stands_at(lanes, bytes, at);
        if first_fits && !self.nested {
            return Ok(false);
        }
        let mut longest = if first_fits { self.first.literal.len } else { 0 };
        let mut fit = None;
        for (i, step) in self.others.iter().enumerate() {
            if step.literal.len > longest && step.literal.stands_at(lanes, bytes, at) {
                (fit, longest) = (Some(i), step.literal.len);
            }
        }
        match fit {
            Some(i) => std::mem::swap(&mut self.first, &mut self.others[i]),
            None if first_fits => return Ok(false),
            None => return Err(Stop::Unknown),
        }
        Ok(true)
    }

    /// The step with the same literal, which says all that there is to know.
    fn find(&self, step: &Step) -> Option<&Step> {
        let same = |s: &&Step| s.then == step.then && s.literal == step.literal;
        Some(&self.first).filter(same).or_else(|| self.others.iter().find(same))
    }

    fn learn(&mut self, step: Step) {
        self.others.truncate(MAX_LITERALS - 2);
        self.others.insert(0, std::mem::replace(&mut self.first, step));
        let all = || self.others.iter().chain([&self.first]);
        self.nested = all().any(|a| all().any(|b| a.literal.begins(&b.literal)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::general::GeneralParser;

    fn schema() -> Arc<Schema> {
        let toml = r#"
            topic = "t"
            field = [
                { name = "id", type = "string", role = "event_id" },
                { name = "n", type = "int" },
                { name = "x", type = "float", required = false },
                { name = "ok", type = "bool" },
                { name = "at", type = "timestamp", role = "event_time" },
            ]"#;
        Schema::new(&toml_edit::de::from_str(toml).expect("a pipeline"))
    }

    fn records() -> RawBatch {
        let mut raw = RawBatch::default();
        let long = "long".repeat(60);
        for i in 0..2000_i64 {
            let id = ["a", "", "é", "\\n", "0123456789abcdef0123456789abcdef", &long][i as usize / 7 % 6];
            let x = ["1.25", "null", "-0.5", "1e3"][i as usize / 90 % 4];
            let mut text = match i / 40 % 3 {
                0 => format!(r#"{{"id":"{id}","n":{i},"ok":true,"at":"2026-02-06T14:30:{:02}"}}"#, i % 61),
                1 => {
                    format!(r#"{{"at":"2026-02-0{}T01:02:03Z","n":{},"x":{x},"ok":false,"id":"{id}"}}"#, i % 9 + 1, -i)
                }
                _ => format!(r#" {{ "id" : "{id}", "ok" : false, "n" : {i}, "x":{x}, "at":"2026-02-06 00:00:00" }} "#),
            };
            if i % 53 == 0 {
                text.pop();
            }
            raw.push(i, 0, None, Some(text.as_bytes()));
        }
        raw.seal();
        raw
    }

    /// Which rows a scanner takes, and the columns that it and the general parser fill between them.
    fn read(mut scanner: Scanner) -> (Vec<bool>, Vec<bool>, String) {
        let raw = records();
        let schema = schema();
        let mut columns = ColumnSet::new(&schema);
        columns.begin(raw.len());
        let mut general = GeneralParser::new(schema);
        let (mut keep, mut scanned, mut row) = (vec![false; raw.len()], vec![true; raw.len()], 0);
        loop {
            let stop;
            (row, stop) = scanner.run(&raw, row, &mut columns, &mut keep);
            if stop == Stop::Done {
                return (scanned, keep, format!("{:?}", columns.finish()));
            }
            scanned[row] = false;
            let accepted = general.parse(raw.value(row), row, &mut columns).ok();
            keep[row] = accepted.is_none_or(|a| a.keep_payload);
            if stop == Stop::Unknown && accepted.is_some_and(|a| a.plain) {
                scanner.learn(raw.value(row), general.spans(), &columns);
            }
            row += 1;
        }
    }

    #[test]
    fn the_scanner_is_the_same_on_every_processor() {
        let scanner = Scanner::new(&schema());
        #[cfg(target_arch = "x86_64")]
        let plain = read(Scanner { avx2: None, ..Scanner::new(&schema()) });
        #[cfg(not(target_arch = "x86_64"))]
        let plain = read(Scanner::new(&schema()));
        assert!(read(scanner) == plain);
        // It must have read most of them, or this test is of the general parser.
        let taken = plain.0.iter().filter(|taken| **taken).count();
        assert!(taken > 1200, "{taken} of 2000");
    }
}
