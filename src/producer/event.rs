//! An event as JSON, written without allocating.

use super::session::Action;

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Where each byte's two digits stand in the text of a UUID.
const BYTE_STARTS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// A random (version 4) UUID from 128 random bits, as text.
pub fn uuid_text(random: u128) -> [u8; 36] {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    for (byte, at) in bits.to_be_bytes().iter().zip(&BYTE_STARTS) {
        text[*at] = HEX[usize::from(byte >> 4)];
        text[*at + 1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// A number in decimal, in a buffer of its own.
pub struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    /// The digits of `number`.
    pub fn of(mut number: u32) -> Self {
        let mut digits = [b'0'; 10];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, start };
            }
        }
    }

    /// As bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Appends the event to `value`: one JSON object without spaces, its keys in the order of the original
/// producer's.
pub fn write(value: &mut Vec<u8>, event_id: &[u8; 36], action: &Action, timestamp: &[u8; 19]) {
    let user_id = Decimal::of(action.user_id);
    let parts: [&[u8]; 13] = [
        b"{\"event_id\":\"",
        event_id,
        b"\",\"user_id\":",
        user_id.as_bytes(),
        b",\"event_type\":\"",
        action.event_type.as_str().as_bytes(),
        b"\",\"page\":\"",
        action.page.as_bytes(),
        b"\",\"timestamp\":\"",
        timestamp,
        b"\",\"source\":\"",
        action.source.as_str().as_bytes(),
        b"\"}",
    ];
    // By reference: an array's own iterator is not inlined here and would cost as much as the copies.
    for part in &parts {
        value.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::session::{EventType, Source};

    #[test]
    fn an_event_is_written_as_the_original_producer_did() {
        let action = Action { user_id: 42, event_type: EventType::Purchase, page: "/checkout", source: Source::Mobile };
        let mut value = Vec::new();
        write(&mut value, &uuid_text(0), &action, b"2026-02-06T14:30:00");
        assert_eq!(
            String::from_utf8(value).unwrap(),
            r#"{"event_id":"00000000-0000-4000-8000-000000000000","user_id":42,"event_type":"purchase","page":"/checkout","timestamp":"2026-02-06T14:30:00","source":"mobile"}"#
        );
    }

    #[test]
    fn ids_are_version_4_uuids() {
        for random in [0, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let text = uuid_text(random);
            let uuid = uuid::Uuid::parse_str(std::str::from_utf8(&text).unwrap()).unwrap();
            assert_eq!(uuid.get_version_num(), 4);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        }
        assert_ne!(uuid_text(1), uuid_text(2));
    }

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 7, 10, 99, 100, u32::MAX] {
            assert_eq!(Decimal::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
