//! The members of a record's object and where their values stand: for whoever changes one value and must leave the rest
//! of the record byte for byte as it is.

use std::ops::Range;

use super::general::{begin, kind};
use super::json::{Malformed, Reader};
use super::refusal::Refusal;

/// One key of the record's object, outermost level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The key, without quotes and escapes.
    pub key: String,
    /// From the key's opening quote to the end of its value.
    pub whole: Range<usize>,
    /// The value, as it is written.
    pub value: Range<usize>,
}

/// The members in their order, a repeated key as often as it stands there; or why the value is no JSON object, in the
/// words of `parse_error`.
pub fn members(value: &[u8]) -> Result<Vec<Member>, String> {
    read(value).map_err(|refusal| refusal.to_string())
}

fn read(value: &[u8]) -> Result<Vec<Member>, Refusal<'static>> {
    let mut reader = begin(value)?;
    if reader.peek() != Some(b'{') {
        let found = reader.value(0, &mut Vec::new())?;
        reader.end()?;
        return Err(Refusal::NotObject { found: kind(&found) });
    }
    let members = object(&mut reader, value)?;
    reader.end()?;
    Ok(members)
}

fn object(reader: &mut Reader, value: &[u8]) -> Result<Vec<Member>, Malformed> {
    let (mut members, mut scratch) = (Vec::new(), Vec::new());
    let mut more = reader.open_object();
    while more {
        let begin = reader.at;
        scratch.clear();
        let key = reader.text(&mut scratch)?;
        let key = String::from_utf8_lossy(key.bytes(value, &scratch)).into_owned();
        reader.colon()?;
        let start = reader.at;
        reader.skip_value(1)?;
        members.push(Member { key, whole: begin..reader.at, value: start..reader.at });
        more = reader.next_member()?;
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_where_they_stand() {
        let text = br#" {"a": 1.50, "b\u0063" :[1,{"x":"}"}],"a":"\"" } "#;
        let found = members(text).unwrap();
        let shown: Vec<(&str, &str)> =
            found.iter().map(|m| (m.key.as_str(), std::str::from_utf8(&text[m.value.clone()]).unwrap())).collect();
        assert_eq!(shown, [("a", "1.50"), ("bc", r#"[1,{"x":"}"}]"#), ("a", r#""\"""#)]);
        assert_eq!(&text[found[0].whole.clone()], br#""a": 1.50"#);
        assert_eq!(members(b"{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_says_why() {
        for (value, why) in [
            (&b""[..], "empty value"),
            (b"\xff", "not UTF-8 at byte 0"),
            (b"[1]", "expected an object, found array"),
            (b"{\"a\":1", "not JSON: it ends too early at byte 6"),
            (b"{\"a\":1} x", "not JSON: more behind the value at byte 8"),
        ] {
            assert_eq!(members(value).unwrap_err(), why);
        }
    }
}
