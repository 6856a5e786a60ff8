//! Whether a double gives back the number that was written.

use std::io::Write;

/// Digits that every double keeps.
const SURE_DIGITS: usize = 15;
/// Decimal exponents within which no digit is lost to a subnormal.
const SURE_EXPONENTS: std::ops::RangeInclusive<i64> = -290..=290;

/// Whether `value`, read from the JSON number `text`, is written back (as its shortest decimal) as the same number.
/// That holds for what any program prints of a double, and fails for numbers that carry more than one holds.
pub(crate) fn gives_back(value: f64, text: &str) -> bool {
    let Some(written) = Decimal::read(text) else { return false };
    if written.digits == 0 || (written.digits <= SURE_DIGITS && SURE_EXPONENTS.contains(&written.exponent)) {
        return true;
    }
    let mut shortest = [0; 32]; // a double's shortest form has 17 digits, a sign, a point and an exponent of three
    let mut rest = &mut shortest[..];
    if write!(rest, "{value:e}").is_err() {
        return false;
    }
    let unused = rest.len();
    let len = shortest.len() - unused;
    let shortest = std::str::from_utf8(&shortest[..len]).unwrap_or_default();
    Decimal::read(shortest).is_some_and(|s| {
        s.digits == written.digits
            && s.exponent == written.exponent
            && s.significant(shortest).eq(written.significant(text))
    })
}

/// A decimal number without regard to its sign: 0.d₁d₂… × 10^exponent, d₁ and the last digit not 0.
struct Decimal {
    /// Number of significant digits; 0 for zero.
    digits: usize,
    exponent: i64,
    /// Digits before the first significant one.
    leading: usize,
}

impl Decimal {
    /// Reads a JSON number; none if its exponent is beyond any reckoning.
    fn read(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (mut total, mut before_point, mut leading, mut last) = (0, None, None, 0);
        for b in mantissa.bytes() {
            match b {
                b'.' => before_point = Some(total),
                b'0'..=b'9' => {
                    total += 1;
                    if b != b'0' {
                        leading.get_or_insert(total - 1);
                        last = total;
                    }
                }
                _ => {}
            }
        }
        let Some(leading) = leading else { return Some(Self { digits: 0, exponent: 0, leading: 0 }) };
        let exponent = i64::from(exponent) + before_point.unwrap_or(total) as i64 - leading as i64;
        Some(Self { digits: last - leading, exponent, leading })
    }

    fn significant<'a>(&self, text: &'a str) -> impl Iterator<Item = u8> + 'a {
        text.bytes().filter(u8::is_ascii_digit).skip(self.leading).take(self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> bool {
        gives_back(text.parse().expect("a number"), text)
    }

    #[test]
    fn what_programs_print_of_doubles_comes_back() {
        for text in [
            "0",
            "-0.0",
            "0.000",
            "1",
            "-1.50",
            "1e3",
            "1E+003",
            "12.5e-7",
            "0.1",
            "0.30000000000000004",
            "1e300",
            "123456789012345680000",
            "1.7976931348623157e308",
            "5e-324",
            "2.2250738585072014e-308",
            "9007199254740992",
            "0.0000001",
            "100000000000000000000000",
        ] {
            assert!(check(text), "{text}");
        }
    }

    #[test]
    fn what_a_double_cannot_hold_does_not() {
        for text in [
            "9007199254740993",
            "0.1000000000000000055511151231257827",
            "1e-400",
            "3e-324",
            "12345678901234567890",
            "1.23456789012345678",
            "0.12345678901234567e-310",
            "1e99999999999",
        ] {
            assert!(!check(text), "{text}");
        }
    }
}
