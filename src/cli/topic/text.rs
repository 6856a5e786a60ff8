//! Record bytes on a terminal: readable, and unable to steer it.

use std::fmt::Write;

/// The bytes as text: what is no UTF-8, and control characters, as `\xNN` and `\u{N}`.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text += "\\n",
                '\r' => text += "\\r",
                '\t' => text += "\\t",
                c if steers(c) => {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Control characters, and those that change the direction of what follows.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `limit` characters, with how many are left out.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}… ({} more characters)", &text[..at], text[at..].chars().count()),
    }
}

/// The bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_reaches_the_terminal_as_a_command() {
        assert_eq!(escaped(b"plain \xc3\xa9"), "plain é");
        assert_eq!(escaped(b"\x1b[2J\x07\n\xff\x80"), "\\u{1b}[2J\\u{7}\\n\\xff\\x80");
        assert_eq!(escaped("a\u{202e}b\u{9b}31m".as_bytes()), "a\\u{202e}b\\u{9b}31m");
        let all: Vec<u8> = (0..=255).collect();
        assert!(escaped(&all).chars().all(|c| !c.is_control()));
    }

    #[test]
    fn long_text_says_what_is_left_out() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äöü… (1 more characters)");
        assert_eq!(hex(b"\x00\xff"), "00ff");
    }
}
