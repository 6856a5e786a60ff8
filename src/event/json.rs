//! A strict JSON reader (RFC 8259) over text that is known to be UTF-8: no recursion, no allocation, nothing accepted
//! that the standard does not name, and no lone surrogates.

use std::ops::Range;

use super::bytes::plain_run_end;

/// Deepest nesting of objects and arrays, the outermost included.
pub(crate) const MAX_DEPTH: u32 = 128;

/// Where and why a text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub what: &'static str,
    pub at: usize,
}

/// A value. Objects and arrays are checked and passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The bytes of the number.
    Number(Range<usize>),
    Text(Text),
    Array,
    Object,
}

/// A string: without escapes it is a part of the input, else it was decoded into the reader's scratch buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Plain(Range<usize>),
    Decoded(Range<usize>),
}

impl Text {
    /// The decoded bytes; valid UTF-8.
    pub fn bytes<'a>(&self, input: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Text::Plain(range) => &input[range.clone()],
            Text::Decoded(range) => &scratch[range.clone()],
        }
    }
}

/// Reads along `input` from `at` on.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// `input` must be UTF-8.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// The next byte; none at the end.
    pub fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `byte`, or says what was expected instead.
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(self.malformed(what));
        }
        self.at += 1;
        Ok(())
    }

    pub fn malformed(&self, what: &'static str) -> Malformed {
        let what = if self.at >= self.input.len() { "it ends too early" } else { what };
        Malformed { what, at: self.at }
    }

    /// Goes into the object whose bracket is next; whether it has a member, whose key is then next.
    pub fn open_object(&mut self) -> bool {
        self.at += 1;
        self.skip_space();
        let empty = self.peek() == Some(b'}');
        self.at += usize::from(empty);
        !empty
    }

    /// Goes from a member's key to its value.
    pub fn colon(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        self.expect(b':', "expected `:`")?;
        self.skip_space();
        Ok(())
    }

    /// Goes on behind a member's value; whether another member follows, whose key is then next.
    pub fn next_member(&mut self) -> Result<bool, Malformed> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                Ok(true)
            }
            Some(b'}') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.malformed("expected `,` or `}`")),
        }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        if self.peek().is_some() { Err(self.malformed("more behind the value")) } else { Ok(()) }
    }

    /// Reads a value and keeps strings; `depth` objects and arrays are open around it.
    pub fn value(&mut self, depth: u32, scratch: &mut Vec<u8>) -> Result<Value, Malformed> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.text(scratch).map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Value::Number(start..self.at)),
            first => {
                self.skip_value(depth)?;
                Ok(match first {
                    Some(b't') => Value::Bool(true),
                    Some(b'f') => Value::Bool(false),
                    Some(b'n') => Value::Null,
                    Some(b'[') => Value::Array,
                    _ => Value::Object,
                })
            }
        }
    }

    /// Reads a string; one with escapes is decoded behind what `scratch` holds.
    pub fn text(&mut self, scratch: &mut Vec<u8>) -> Result<Text, Malformed> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        self.at = plain_run_end(self.input, start);
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Text::Plain(start..self.at - 1));
        }
        let decoded = scratch.len();
        scratch.extend_from_slice(&self.input[start..self.at]);
        self.rest_of_string(Some(scratch))?;
        Ok(Text::Decoded(decoded..scratch.len()))
    }

    /// Reads to the closing quote from behind the opening one.
    fn rest_of_string(&mut self, mut decoded: Option<&mut Vec<u8>>) -> Result<(), Malformed> {
        loop {
            let start = self.at;
            self.at = plain_run_end(self.input, start);
            if let Some(out) = &mut decoded {
                out.extend_from_slice(&self.input[start..self.at]);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let c = self.escape()?;
                    if let Some(out) = &mut decoded {
                        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                _ => return Err(self.malformed("control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let start = self.at;
        self.at += 1;
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => c as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape(start);
            }
            _ => return Err(self.malformed("unknown escape in a string")),
        };
        self.at += 1;
        Ok(c)
    }

    /// The rest of `\uXXXX`, with the second half of a surrogate pair.
    fn unicode_escape(&mut self, start: usize) -> Result<char, Malformed> {
        let lone = Malformed { what: "lone surrogate in a string", at: start };
        let first = self.hex4()?;
        let code = match first {
            0xd800..0xdc00 => {
                if self.input.get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(lone);
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(lone);
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            _ => first,
        };
        char::from_u32(code).ok_or(lone)
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| (b as char).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.malformed("four hexadecimal digits expected after \\u"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Passes over a number.
    pub fn number(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.malformed("expected a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if !self.input[self.at..].starts_with(word) {
            return Err(self.malformed("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Checks a value of any kind and passes over it; `depth` objects and arrays are open around it.
    pub fn skip_value(&mut self, depth: u32) -> Result<(), Malformed> {
        // One bit for every object (1) or array (0) that is open here, the innermost lowest.
        let mut open: u128 = 0;
        let mut opened = 0;
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.rest_of_string(None)?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + opened >= MAX_DEPTH {
                        return Err(self.malformed("nested deeper than 128"));
                    }
                    self.at += 1;
                    self.skip_space();
                    if self.peek() == Some(bracket + 2) {
                        self.at += 1; // `{}` or `[]`: in ASCII a closing bracket is its opening one plus two
                    } else {
                        open = open << 1 | u128::from(bracket == b'{');
                        opened += 1;
                        if bracket == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                _ => return Err(self.malformed("expected a value")),
            }
            // A value has ended: close what it was the last of.
            loop {
                if opened == 0 {
                    return Ok(());
                }
                let object = open & 1 == 1;
                self.skip_space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if object {
                            self.skip_space();
                            self.skip_key()?;
                        }
                        break;
                    }
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ if object => return Err(self.malformed("expected `,` or `}`")),
                    _ => return Err(self.malformed("expected `,` or `]`")),
                }
                self.at += 1;
                open >>= 1;
                opened -= 1;
            }
        }
    }

    /// A key and its colon.
    fn skip_key(&mut self) -> Result<(), Malformed> {
        self.expect(b'"', "expected a key in quotes")?;
        self.rest_of_string(None)?;
        self.skip_space();
        self.expect(b':', "expected `:`")
    }
}
