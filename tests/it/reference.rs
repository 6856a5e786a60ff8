//! The definition of an event (docs: what is an event) in the plainest code that says it: characters, recursion,
//! chrono. Slow; what the decoder is held against.

use boathouse::config::{FieldType, Pipeline, Role};
use chrono::{Datelike, Duration, NaiveDate};

/// A JSON value; numbers as written, repeated keys kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A column's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    /// The bits of a double, so that -0 is not 0.
    Float(u64),
    Bool(bool),
    Time(i64),
    Text(String),
}

/// An event as its columns must hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub cells: Vec<Cell>,
    pub event_time: i64,
    pub keep_payload: bool,
}

/// The event in a record's value, if it is one.
pub fn event(pipeline: &Pipeline, value: &[u8]) -> Option<Event> {
    let Json::Object(members) = parse(value)? else { return None };
    let mut cells = Vec::new();
    let mut back = Vec::new();
    for field in &pipeline.fields {
        let last = members.iter().rev().find(|(key, _)| *key == field.name).map(|(_, v)| v);
        let cell = match (field.kind, last) {
            (_, None | Some(Json::Null)) if field.required => return None,
            (_, None | Some(Json::Null)) => Cell::Null,
            (FieldType::String, Some(Json::Text(s))) => Cell::Text(s.clone()),
            (FieldType::Bool, Some(Json::Bool(b))) => Cell::Bool(*b),
            (FieldType::Int, Some(Json::Number(n))) => Cell::Int(n.parse().ok()?),
            (FieldType::Float, Some(Json::Number(n))) => {
                Cell::Float(n.parse::<f64>().ok().filter(|f| f.is_finite())?.to_bits())
            }
            (FieldType::Timestamp, Some(Json::Text(s))) => Cell::Time(time(s)?),
            _ => return None,
        };
        let json = match &cell {
            Cell::Null => None,
            Cell::Int(i) => Some(Json::Number(i.to_string())),
            Cell::Float(bits) => Some(Json::Number(f64::from_bits(*bits).to_string())),
            Cell::Bool(b) => Some(Json::Bool(*b)),
            Cell::Text(s) => Some(Json::Text(s.clone())),
            Cell::Time(t) => {
                let time = chrono::DateTime::from_timestamp_micros(*t)?;
                Some(Json::Text(time.format("%Y-%m-%dT%H:%M:%S").to_string()))
            }
        };
        back.extend(json.map(|v| (field.name.clone(), v)));
        cells.push(cell);
    }
    let event_time = match cells[pipeline.role(Role::EventTime)?] {
        Cell::Time(t) => t,
        _ => return None,
    };
    let same = |a: &[(String, Json)], b: &[(String, Json)]| {
        let mut sorted = [a.to_vec(), b.to_vec()];
        sorted.iter_mut().for_each(|s| s.sort_by(|x, y| x.0.cmp(&y.0)));
        let [a, b] = sorted;
        a.len() == b.len() && a.iter().zip(&b).all(|(x, y)| x.0 == y.0 && same_value(&x.1, &y.1))
    };
    Some(Event { cells, event_time, keep_payload: !same(&members, &back) })
}

/// Whether two values of fields are the same, numbers by their worth.
fn same_value(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => decimal(a) == decimal(b),
        _ => a == b,
    }
}

/// A number's sign, its digits without zeros at either end, and its exponent.
fn decimal(text: &str) -> (bool, String, i64) {
    let negative = text.starts_with('-');
    let (mantissa, exponent) = text.trim_start_matches('-').split_once(['e', 'E']).unwrap_or((text, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let exponent = exponent.parse().unwrap_or(i64::MAX / 2) - fraction.len() as i64;
    let kept = digits.trim_end_matches('0');
    let exponent = exponent + (digits.len() - kept.len()) as i64;
    let kept = kept.trim_start_matches('0');
    (negative, kept.to_string(), if kept.is_empty() { 0 } else { exponent })
}

/// Microseconds since the epoch.
fn time(text: &str) -> Option<i64> {
    let c: Vec<char> = text.chars().collect();
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = c.get(range)?;
        digits.iter().all(char::is_ascii_digit).then(|| digits.iter().collect::<String>().parse().ok())?
    };
    let is = |i: usize, allowed: &str| c.get(i).is_some_and(|c| allowed.contains(*c));
    if !(is(4, "-") && is(7, "-") && is(10, "T ") && is(13, ":") && is(16, ":")) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(number(0..4)? as i32, number(5..7)?, number(8..10)?)?;
    let local = date.and_hms_opt(number(11..13)?, number(14..16)?, number(17..19)?)?;
    let mut rest = &c[19..];
    let mut micros = 0;
    if let ['.', fraction @ ..] = rest {
        let digits: String = fraction.iter().take_while(|c| c.is_ascii_digit()).collect();
        rest = &fraction[digits.len()..];
        if digits.is_empty() {
            return None;
        }
        micros = format!("{digits:0<6}")[..6].parse().ok()?;
    }
    let zone: String = rest.iter().collect();
    let ahead = match zone.as_str() {
        "" | "Z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let digits = match rest {
                ['+' | '-', h1, h2, ':', m1, m2] | ['+' | '-', h1, h2, m1, m2] => [h1, h2, m1, m2],
                _ => return None,
            };
            let d: Option<Vec<u32>> = digits.iter().map(|c| c.to_digit(10)).collect();
            let d = d?;
            let (hours, minutes) = (d[0] * 10 + d[1], d[2] * 10 + d[3]);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * i64::from(hours * 60 + minutes)
        }
    };
    let utc = local - Duration::minutes(ahead) + Duration::microseconds(micros);
    (1970..=2105).contains(&utc.year()).then(|| utc.and_utc().timestamp_micros())
}

/// The JSON value of a text, if it is one.
pub fn parse(bytes: &[u8]) -> Option<Json> {
    let chars: Vec<char> = std::str::from_utf8(bytes).ok()?.chars().collect();
    let mut p = Plain { chars: &chars };
    let value = p.value(0)?;
    p.space();
    p.chars.is_empty().then_some(value)
}

struct Plain<'a> {
    chars: &'a [char],
}

impl Plain<'_> {
    fn next(&mut self) -> Option<char> {
        let (first, rest) = self.chars.split_first()?;
        self.chars = rest;
        Some(*first)
    }

    fn take(&mut self, text: &str) -> bool {
        let taken = self.chars.iter().take(text.chars().count()).copied().eq(text.chars());
        if taken {
            self.chars = &self.chars[text.chars().count()..];
        }
        taken
    }

    fn space(&mut self) {
        while [" ", "\t", "\n", "\r"].iter().any(|s| self.take(s)) {}
    }

    /// A value inside `depth` others.
    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        match *self.chars.first()? {
            'n' => self.take("null").then_some(Json::Null),
            't' => self.take("true").then_some(Json::Bool(true)),
            'f' => self.take("false").then_some(Json::Bool(false)),
            '"' => self.text().map(Json::Text),
            '[' | '{' if depth == 128 => None,
            '[' => {
                self.next();
                let mut items = Vec::new();
                self.space();
                if self.take("]") {
                    return Some(Json::Array(items));
                }
                loop {
                    items.push(self.value(depth + 1)?);
                    self.space();
                    if self.take("]") {
                        return Some(Json::Array(items));
                    }
                    self.take(",").then_some(())?;
                }
            }
            '{' => {
                self.next();
                let mut members = Vec::new();
                self.space();
                if self.take("}") {
                    return Some(Json::Object(members));
                }
                loop {
                    self.space();
                    let key = self.text()?;
                    self.space();
                    self.take(":").then_some(())?;
                    members.push((key, self.value(depth + 1)?));
                    self.space();
                    if self.take("}") {
                        return Some(Json::Object(members));
                    }
                    self.take(",").then_some(())?;
                }
            }
            _ => self.number().map(Json::Number),
        }
    }

    fn number(&mut self) -> Option<String> {
        let before = self.chars;
        self.take("-");
        if !self.take("0") {
            self.digits()?;
        }
        if self.take(".") {
            self.digits()?;
        }
        if self.take("e") || self.take("E") {
            let _ = self.take("+") || self.take("-");
            self.digits()?;
        }
        Some(before[..before.len() - self.chars.len()].iter().collect())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.chars.iter().take_while(|c| c.is_ascii_digit()).count();
        self.chars = &self.chars[count..];
        (count > 0).then_some(())
    }

    fn text(&mut self) -> Option<String> {
        self.take("\"").then_some(())?;
        let mut units = Vec::new();
        loop {
            let c = match self.next()? {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => match self.next()? {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let digits: String = (0..4).map(|_| self.next()).collect::<Option<_>>()?;
                        digits.chars().all(|c| c.is_ascii_hexdigit()).then_some(())?;
                        units.push(u16::from_str_radix(&digits, 16).ok()?);
                        continue;
                    }
                    c @ ('"' | '\\' | '/') => c,
                    _ => return None,
                },
                c if c < ' ' => return None,
                c => c,
            };
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
}
