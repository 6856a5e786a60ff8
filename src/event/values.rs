//! Plain values as the scanner reads them: the common way of writing each type, quickly; anything else is left to the
//! general parser.

use super::bytes::{Lanes, load8};
use super::json::Reader;
use super::timestamp::{self, MICROS_PER_SECOND};

/// Bytes looked at without asking whether they are there; [`super::PADDING`] sees to it.
pub(crate) const WINDOW: usize = super::PADDING;

/// Why the scanner's short cut ends at a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// There is no record left.
    Done,
    /// It has a value that the general parser must look at.
    Odd,
    /// It is written in a way not learned yet.
    Unknown,
}

/// The bytes from `at` on.
#[inline(always)]
pub(crate) fn window(bytes: &[u8], at: usize) -> Option<&[u8; WINDOW]> {
    match bytes.get(at..) {
        Some(rest) => rest.first_chunk(),
        None => None,
    }
}

/// The two blocks of a window.
#[inline(always)]
pub(crate) fn halves(window: &[u8; WINDOW]) -> (&[u8; 32], &[u8; 32]) {
    // A window is two blocks long, so both are there.
    match (window.first_chunk(), window.last_chunk()) {
        (Some(first), Some(second)) => (first, second),
        _ => (&[0; 32], &[0; 32]),
    }
}

/// Copies the string that begins at `at`, in a record that ends at `end`, to `values` from `to` on; its length. Behind
/// it stands the closing quote. What lies behind it in `values` is void.
#[inline(always)]
pub(crate) fn text<L: Lanes>(
    lanes: L,
    bytes: &[u8],
    at: usize,
    end: usize,
    to: usize,
    values: &mut Vec<u8>,
) -> Result<usize, Stop> {
    let Some(window) = window(bytes, at) else { return Err(Stop::Odd) };
    let room = match values.get_mut(to..) {
        Some(rest) => rest.first_chunk_mut::<WINDOW>(),
        None => None,
    };
    let Some(room) = room else { return long_text(lanes, bytes, at, end, to, values) };
    // Two blocks hold the common string.
    let (first, second) = halves(window);
    room[..32].copy_from_slice(first);
    let (mut ends, mut high) = lanes.classify(first);
    let mut len = 0;
    if ends == 0 {
        if high != 0 {
            return long_text(lanes, bytes, at, end, to, values);
        }
        room[32..].copy_from_slice(second);
        (ends, high) = lanes.classify(second);
        len = 32;
        if ends == 0 {
            return long_text(lanes, bytes, at, end, to, values);
        }
    }
    // No character before the first end may be other than ASCII.
    if high & (ends - 1) & !ends != 0 {
        return long_text(lanes, bytes, at, end, to, values);
    }
    len += ends.trailing_zeros() as usize;
    if window[len % WINDOW] != b'"' {
        return Err(Stop::Odd);
    }
    Ok(len)
}

/// [`text`] for a string of any length and script, and where `values` must grow.
#[inline(never)]
fn long_text<L: Lanes>(
    lanes: L,
    bytes: &[u8],
    at: usize,
    end: usize,
    to: usize,
    values: &mut Vec<u8>,
) -> Result<usize, Stop> {
    let quote = skip_text(lanes, bytes, at, end)?;
    let text = &bytes[at..quote];
    if values.len() < to + text.len() + WINDOW {
        values.resize((to + text.len() + WINDOW).max(4096).max(values.len() * 2), 0);
    }
    values[to..to + text.len()].copy_from_slice(text);
    Ok(text.len())
}

/// The closing quote of the string that begins at `at`, in a record that ends at `end`.
#[inline(always)]
pub(crate) fn skip_text<L: Lanes>(lanes: L, bytes: &[u8], at: usize, end: usize) -> Result<usize, Stop> {
    let (mut quote, mut high) = (at, 0);
    loop {
        let Some(window) = window(bytes, quote) else { return Err(Stop::Odd) };
        let (ends, high_here) = lanes.classify(halves(window).0);
        if ends != 0 {
            high |= high_here & (ends - 1) & !ends;
            quote += ends.trailing_zeros() as usize;
            break;
        }
        high |= high_here;
        quote += 32;
        if quote >= end {
            return Err(Stop::Odd);
        }
    }
    if bytes[quote] != b'"' || (high != 0 && std::str::from_utf8(&bytes[at..quote]).is_err()) {
        return Err(Stop::Odd);
    }
    Ok(quote)
}

/// Where the number ends that begins at `at`, in a record that ends at `end`.
#[inline(always)]
pub(crate) fn skip_number(bytes: &[u8], at: usize, end: usize) -> Result<usize, Stop> {
    let mut reader = Reader::new(bytes.get(..end).ok_or(Stop::Odd)?);
    reader.at = at;
    reader.number().map_err(|_| Stop::Unknown)?;
    Ok(reader.at)
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
pub(crate) fn int(bytes: &[u8], at: usize) -> Result<(i64, usize), Stop> {
    let Some(window) = window(bytes, at) else { return Err(Stop::Odd) };
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
pub(crate) fn float(bytes: &[u8], at: usize) -> Result<(f64, usize), Stop> {
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
pub(crate) fn boolean(bytes: &[u8], at: usize) -> Result<(bool, usize), Stop> {
    let word = load8(bytes, at);
    if word as u32 == u32::from_le_bytes(*b"true") {
        Ok((true, at + 4))
    } else if word & 0xff_ffff_ffff == u64::from_le_bytes(*b"false\0\0\0") {
        Ok((false, at + 5))
    } else {
        Err(Stop::Unknown)
    }
}

/// The day that was met last, as written with its `T`, and its first microsecond.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Day {
    /// Bytes 0 to 8 and 3 to 11 of the timestamp.
    words: (u64, u64),
    start: i64,
}

impl Day {
    /// The timestamp that begins at `at`: its microseconds, whether they give its text back, and where it ends.
    #[inline(always)]
    pub fn time(&mut self, bytes: &[u8], at: usize, end: usize) -> Result<(i64, bool, usize), Stop> {
        let Some(window) = window(bytes, at) else { return Err(Stop::Odd) };
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
