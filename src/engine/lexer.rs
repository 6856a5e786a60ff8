//! ClickHouse's lexical rules, as far as a server in front of the engine needs them: where strings, quoted names and
//! comments end. Understanding statements is left to the engine's own parser.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bare word: a keyword or a name.
    Word,
    /// A name in backquotes or double quotes.
    Quoted,
    /// A string, heredocs included.
    Text,
    Number,
    /// One character of punctuation.
    Punctuation(char),
    /// A string, name or comment that does not end.
    Unclosed,
}

/// A token and where it stands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'s> {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    pub text: &'s str,
}

impl Token<'_> {
    /// Whether this is the keyword `word`, in any case.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub fn is_mark(&self, mark: char) -> bool {
        self.kind == Kind::Punctuation(mark)
    }

    /// Whether this can name a table, column, function or format.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Quoted)
    }
}

/// Iterates over the tokens of a text; white space and comments are left out.
pub struct Lexer<'s> {
    text: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    pub fn new(text: &'s str) -> Self {
        Self { text, at: 0 }
    }

    /// Goes on from a byte position, which must be a character boundary.
    pub fn seek(&mut self, at: usize) {
        self.at = at;
    }

    fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) -> Option<Token<'s>> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}');
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") || trimmed.starts_with("#!") || trimmed.starts_with("# ") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(n) => self.at += n + 4,
                    None => return Some(self.take(Kind::Unclosed, trimmed.len())),
                }
            } else {
                return None;
            }
        }
    }

    fn take(&mut self, kind: Kind, length: usize) -> Token<'s> {
        let start = self.at;
        self.at += length;
        Token { kind, start, end: self.at, text: &self.text[start..self.at] }
    }

    /// Length of a quoted piece that starts at the cursor; a backslash escapes, a doubled quote stands for itself.
    fn quoted(&self, quote: u8) -> Option<usize> {
        let bytes = self.rest().as_bytes();
        let mut i = 1;
        while i < bytes.len() {
            match bytes[i] {
                b'\\' => i += 2,
                b if b == quote && bytes.get(i + 1) == Some(&quote) => i += 2,
                b if b == quote => return Some(i + 1),
                _ => i += 1,
            }
        }
        None
    }

    fn quoted_token(&mut self, kind: Kind, quote: u8) -> Token<'s> {
        match self.quoted(quote) {
            Some(length) => self.take(kind, length),
            None => self.take(Kind::Unclosed, self.rest().len()),
        }
    }

    /// `$tag$ … $tag$`, if one starts here.
    fn heredoc(&self) -> Option<usize> {
        let rest = self.rest();
        let tag_end = rest[1..].find('$')? + 2;
        let tag = &rest[..tag_end];
        tag[1..tag_end - 1].bytes().all(is_word).then_some(())?;
        rest[tag_end..].find(tag).map(|n| tag_end + n + tag.len())
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl<'s> Iterator for Lexer<'s> {
    type Item = Token<'s>;

    fn next(&mut self) -> Option<Token<'s>> {
        if let Some(unclosed) = self.skip_blanks() {
            return Some(unclosed);
        }
        let rest = self.rest();
        let first = rest.chars().next()?;
        Some(match first {
            '\'' => self.quoted_token(Kind::Text, b'\''),
            '"' => self.quoted_token(Kind::Quoted, b'"'),
            '`' => self.quoted_token(Kind::Quoted, b'`'),
            '‘' | '“' => {
                let (kind, close) = if first == '‘' { (Kind::Text, '’') } else { (Kind::Quoted, '”') };
                match rest.find(close) {
                    Some(n) => self.take(kind, n + close.len_utf8()),
                    None => self.take(Kind::Unclosed, rest.len()),
                }
            }
            '$' if self.heredoc().is_some() => {
                let length = self.heredoc().unwrap_or(1);
                self.take(Kind::Text, length)
            }
            c if c.is_ascii_digit() => {
                let n = rest.bytes().take_while(|b| is_word(*b) || *b == b'.').count();
                self.take(Kind::Number, n)
            }
            c if is_word(c as u8) && c.is_ascii() || c == '$' => {
                let n = rest.bytes().take_while(|b| is_word(*b) || *b == b'$').count();
                self.take(Kind::Word, n)
            }
            c => self.take(Kind::Punctuation(c), c.len_utf8()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<&str> {
        Lexer::new(sql).map(|t| t.text).collect()
    }

    #[test]
    fn comments_and_quotes_end_where_clickhouse_ends_them() {
        let cases: &[(&str, &[&str])] = &[
            ("SELECT 1 -- x\n, 2", &["SELECT", "1", ",", "2"]),
            ("a /* b ' */ c # d\n#e", &["a", "c", "#", "e"]),
            (r"'it''s' 'a\'b' x", &["'it''s'", r"'a\'b'", "x"]),
            (r#"`a``b` "c\"d" e"#, &["`a``b`", r#""c\"d""#, "e"]),
            ("$t$ ' ; $t$ ; $$x$$", &["$t$ ' ; $t$", ";", "$$x$$"]),
            ("‘a’ “b” 1.5e3 x'41'", &["‘a’", "“b”", "1.5e3", "x", "'41'"]),
        ];
        for (sql, want) in cases {
            assert_eq!(words(sql), *want, "{sql}");
        }
    }

    #[test]
    fn what_does_not_end_is_told() {
        for sql in ["'a", "`b", "/* c", "“d"] {
            assert_eq!(Lexer::new(sql).last().map(|t| t.kind), Some(Kind::Unclosed), "{sql}");
        }
    }
}
