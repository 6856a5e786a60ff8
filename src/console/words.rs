//! Figures as people read them. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

/// `12,345,678`.
pub fn count(n: impl Into<i128>) -> String {
    crate::cli::output::count(n)
}

/// `5.2`, `980`, `12,400`: three digits that count.
pub fn rate(per_second: f64) -> String {
    if per_second < 0.05 {
        "0".into()
    } else if per_second < 99.95 {
        format!("{per_second:.1}")
    } else {
        count(per_second.round() as i64)
    }
}

/// `850 ms`, `12 s`, `4 min`, `3 h 20 min`, `2 d 4 h`.
pub fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0 if !duration.is_zero() && duration.as_millis() > 0 => format!("{} ms", duration.as_millis()),
        0..60 => format!("{s} s"),
        60..3_600 if s < 600 && !s.is_multiple_of(60) => format!("{} min {} s", s / 60, s % 60),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => with_rest(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => with_rest(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

fn with_rest(whole: u64, unit: &str, rest: u64, rest_unit: &str) -> String {
    if rest == 0 { format!("{whole} {unit}") } else { format!("{whole} {unit} {rest} {rest_unit}") }
}

pub fn seconds(seconds: f64) -> String {
    span(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}

/// How long ago a moment is; in the future it is now.
pub fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format!("{} ago", age(moment, now))
}

/// The time since a moment.
pub fn age(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let whole = (now - moment).num_seconds().max(0) as u64;
    span(Duration::from_secs(whole))
}

/// How long something took, with a digit more for what is short.
pub fn took(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let span_of = (to - from).to_std().unwrap_or_default();
    if span_of < Duration::from_secs(10) { format!("{:.1} s", span_of.as_secs_f64()) } else { span(span_of) }
}

/// `2026-02-06 14:30:00`, in UTC.
pub fn moment(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `14:30:00`, in UTC.
pub fn clock(moment: DateTime<Utc>) -> String {
    moment.format("%H:%M:%S").to_string()
}

/// `512 B`, `1.5 KiB`, `64 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `1 record`, `2 records`.
pub fn plural(n: impl Into<i128>, one: &str, many: &str) -> String {
    let n = n.into();
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A value of JSON: a text without quotes, none as a dash.
pub fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".into(),
        other => other.to_string(),
    }
}

/// The first so many characters, with an ellipsis behind them where there are more.
pub fn begin(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let s = Duration::from_secs;
        let spans: Vec<String> =
            [0, 59, 60, 61, 600, 3_599, 3_600, 12_000, 86_400, 187_200].map(|n| span(s(n))).into_iter().collect();
        assert_eq!(
            spans,
            ["0 s", "59 s", "1 min", "1 min 1 s", "10 min", "59 min", "1 h", "3 h 20 min", "1 d", "2 d 4 h"]
        );
        assert_eq!(span(Duration::from_millis(850)), "850 ms");
        assert_eq!([0.0, 0.2, 5.24, 99.96, 12_400.4].map(rate), ["0", "0.2", "5.2", "100", "12,400"]);
        assert_eq!([512, 1_536, 64 << 20, 200 << 30].map(bytes), ["512 B", "1.5 KiB", "64.0 MiB", "200 GiB"]);
        assert_eq!(
            (plural(1, "record", "records"), plural(2_000, "record", "records")),
            ("1 record".into(), "2,000 records".into())
        );
    }
}
