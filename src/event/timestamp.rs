//! Timestamps as events write them: `2026-02-06T14:30:00`, with a space for the `T`, a fraction and a zone if they like.

use std::fmt;

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Years that an event may lie in, in UTC: what a ClickHouse DateTime holds.
const YEARS: std::ops::RangeInclusive<i64> = 1970..=2105;
/// 2106-01-01T00:00:00 in microseconds: the first instant that lies beyond [`YEARS`].
const END: i64 = days_from_civil(2106, 1, 1) * MICROS_PER_DAY;

/// A timestamp in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamp {
    /// Microseconds since the epoch.
    pub micros: i64,
    /// Whether it was written `YYYY-MM-DDTHH:MM:SS`, which the microseconds alone give back.
    pub canonical: bool,
}

/// Why a text is no timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTimestamp {
    /// It is written in another way.
    Form,
    /// Its first ten characters name a day that is not in the calendar.
    Date,
    /// Hours, minutes or seconds are out of range; a leap second too.
    Time,
    /// The zone is not one.
    Zone,
    /// It lies outside 1970 to 2105 in UTC.
    Year,
}

impl fmt::Display for NoTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoTimestamp::Form => "is not written YYYY-MM-DDTHH:MM:SS, with a fraction or a zone if need be",
            NoTimestamp::Date => "is not a date",
            NoTimestamp::Time => "is not a time of day",
            NoTimestamp::Zone => "has no zone like Z, +01:00 or +0100",
            NoTimestamp::Year => "is not between the years 1970 and 2105 in UTC",
        })
    }
}

/// Reads a timestamp. The fraction is cut to the microsecond; no zone means UTC.
pub(crate) fn parse(text: &[u8]) -> Result<Timestamp, NoTimestamp> {
    let Some((head, tail)) = text.split_first_chunk::<19>() else { return Err(NoTimestamp::Form) };
    let number = |at: usize, len: usize| digits(&head[at..at + len]).ok_or(NoTimestamp::Form);
    let separators = head[4] == b'-'
        && head[7] == b'-'
        && (head[10] == b'T' || head[10] == b' ')
        && head[13] == b':'
        && head[16] == b':';
    if !separators {
        return Err(NoTimestamp::Form);
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let (fraction, zone) = fraction_micros(tail)?;
    let offset_minutes = zone_minutes(zone)?;
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return Err(NoTimestamp::Date);
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(NoTimestamp::Time);
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
    let micros = seconds * MICROS_PER_SECOND + fraction;
    if !(0..END).contains(&micros) {
        return Err(NoTimestamp::Year);
    }
    Ok(Timestamp { micros, canonical: tail.is_empty() && head[10] == b'T' })
}

/// The microsecond at which a day begins that is written `YYYY-MM-DD`; none if it is no day that an event may lie in.
pub(crate) fn day_start(text: &[u8; 10]) -> Option<i64> {
    let number = |at: usize, len: usize| digits(&text[at..at + len]);
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let ok = text[4] == b'-'
        && text[7] == b'-'
        && YEARS.contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day);
    ok.then(|| days_from_civil(year, month, day) * MICROS_PER_DAY)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

/// The fraction at the beginning of `tail`, and what follows it.
fn fraction_micros(tail: &[u8]) -> Result<(i64, &[u8]), NoTimestamp> {
    let Some((b'.', rest)) = tail.split_first() else { return Ok((0, tail)) };
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 {
        return Err(NoTimestamp::Form);
    }
    let micros = (0..6).fold(0, |n, i| n * 10 + if i < len { i64::from(rest[i] - b'0') } else { 0 });
    Ok((micros, &rest[len..]))
}

/// Minutes that local time is ahead of UTC.
fn zone_minutes(zone: &[u8]) -> Result<i64, NoTimestamp> {
    let (sign, hours, minutes) = match zone {
        [] | [b'Z'] => return Ok(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            (*sign, digits(&[*h1, *h2]), digits(&[*m1, *m2]))
        }
        _ => return Err(NoTimestamp::Form),
    };
    let (Some(hours), Some(minutes)) = (hours, minutes) else { return Err(NoTimestamp::Form) };
    if hours > 23 || minutes > 59 {
        return Err(NoTimestamp::Zone);
    }
    let ahead = hours * 60 + minutes;
    Ok(if sign == b'-' { -ahead } else { ahead })
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's days_from_civil).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Result<i64, NoTimestamp> {
        parse(text.as_bytes()).map(|t| t.micros)
    }

    #[test]
    fn accepts_what_the_platform_says() {
        let base = 1_770_388_200_000_000; // 2026-02-06T14:30:00Z
        for (text, expected, canonical) in [
            ("2026-02-06T14:30:00", base, true),
            ("2026-02-06 14:30:00", base, false),
            ("2026-02-06T14:30:00Z", base, false),
            ("2026-02-06T14:30:00.5", base + 500_000, false),
            ("2026-02-06T14:30:00.1234569", base + 123_456, false),
            ("2026-02-06T14:30:00.000000000000000000001Z", base, false),
            ("2026-02-06T15:30:00+01:00", base, false),
            ("2026-02-06T09:00:00.25-0530", base + 250_000, false),
            ("2026-02-06T14:30:00-00:00", base, false),
            ("1970-01-01T00:00:00", 0, true),
            ("1969-12-31T23:30:00-00:30", 0, false),
            ("2105-12-31T23:59:59.999999", END - 1, false),
            ("2106-01-01T00:59:59+01:00", END - MICROS_PER_SECOND, false),
            ("2000-02-29T00:00:00", 951_782_400_000_000, true),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Timestamp { micros: expected, canonical }), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (text, why) in [
            ("", NoTimestamp::Form),
            ("2026-02-06", NoTimestamp::Form),
            ("2026-02-06T14:30", NoTimestamp::Form),
            ("2026-02-06t14:30:00", NoTimestamp::Form),
            ("2026-02-06T14:30:00z", NoTimestamp::Form),
            ("2026-02-06T14:30:00.", NoTimestamp::Form),
            ("2026-02-06T14:30:00,5", NoTimestamp::Form),
            ("2026-02-06T14:30:00+01", NoTimestamp::Form),
            ("2026-02-06T14:30:00 Z", NoTimestamp::Form),
            (" 2026-02-06T14:30:00", NoTimestamp::Form),
            ("+2026-02-06T14:30:0", NoTimestamp::Form),
            ("2026-02-06T14:30:00+24:00", NoTimestamp::Zone),
            ("2026-02-06T14:30:00+01:60", NoTimestamp::Zone),
            ("2026-02-30T14:30:00", NoTimestamp::Date),
            ("2100-02-29T14:30:00", NoTimestamp::Date),
            ("2026-13-01T14:30:00", NoTimestamp::Date),
            ("2026-00-01T14:30:00", NoTimestamp::Date),
            ("2026-01-00T14:30:00", NoTimestamp::Date),
            ("2026-02-06T24:00:00", NoTimestamp::Time),
            ("2026-02-06T14:60:00", NoTimestamp::Time),
            ("2016-12-31T23:59:60", NoTimestamp::Time),
            ("0000-01-01T00:00:00", NoTimestamp::Year),
            ("9999-12-31T23:59:59", NoTimestamp::Year),
            ("1969-12-31T23:59:59.999999", NoTimestamp::Year),
            ("1970-01-01T00:00:00+00:01", NoTimestamp::Year),
            ("2105-12-31T23:59:59-00:01", NoTimestamp::Year),
        ] {
            assert_eq!(micros(text), Err(why), "{text}");
        }
    }

    #[test]
    fn every_day_of_the_range_follows_the_one_before() {
        let mut next = 0;
        for year in YEARS {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    let start = day_start(text.as_bytes().first_chunk().expect("ten characters"));
                    assert_eq!(start, Some(next), "{text}");
                    assert_eq!(micros(&format!("{text}T00:00:00")), Ok(next), "{text}");
                    next += MICROS_PER_DAY;
                }
            }
        }
        assert_eq!(next, END);
        for text in ["1969-12-31", "2106-01-01", "2026-02-29", "2026/02/01", "20260-2-01"] {
            assert_eq!(day_start(text.as_bytes().first_chunk().expect("ten characters")), None, "{text}");
        }
    }
}
