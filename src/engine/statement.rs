//! How one request's text is cut: an INSERT into its statement, format and data; any other statement's FORMAT clause.
//!
//! The HTTP interface joins the `query` parameter and the body into one text, and an INSERT's data starts behind its
//! FORMAT clause, wherever that stands. The data may be binary, so the text is bytes.

use super::lexer::{Kind, Lexer, Token};

/// How the data of an INSERT follows its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The statement without its FORMAT or VALUES clause, as the engine's streaming insert wants it.
    pub statement: String,
    /// The input format; `Values` for a VALUES clause.
    pub format: String,
    /// Where the data starts, in bytes from the start of the text.
    pub data_at: usize,
}

/// What a text turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// An INSERT with data.
    Insert(Insert),
    /// Anything else; `format` is the name in its FORMAT clause.
    Other { format: Option<String>, is_select: bool },
}

/// A statement that this server does not hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Empty,
    IntoOutfile,
    FromInfile,
    NotUtf8,
}

/// Looks at the text of a request.
pub fn parse(text: &[u8]) -> Result<Statement, Refusal> {
    let sql = readable_prefix(text);
    let mut lexer = Lexer::new(sql);
    let Some(first) = lexer.next() else { return Err(Refusal::Empty) };
    if first.is("insert")
        && let Some(insert) = insert(sql, lexer)?
    {
        return Ok(Statement::Insert(insert));
    }
    if sql.len() < text.len() {
        return Err(Refusal::NotUtf8);
    }
    other(sql)
}

/// Binary data may follow the statement: only the part that is UTF-8 can be statement.
fn readable_prefix(text: &[u8]) -> &str {
    match std::str::from_utf8(text) {
        Ok(s) => s,
        Err(e) => std::str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
    }
}

/// `INSERT INTO [TABLE] [FUNCTION] name [(columns)] [PARTITION BY x] [SETTINGS …] VALUES | FORMAT name`; `None` when
/// it has no data (`INSERT … SELECT`) or is not understood (the engine will say what is wrong with it).
fn insert(sql: &str, mut lexer: Lexer<'_>) -> Result<Option<Insert>, Refusal> {
    let mut depth = 0_i32;
    let mut named = false;
    let mut settings = false;
    let mut previous: Option<Token<'_>> = None;
    while let Some(token) = lexer.next() {
        // `INSERT INTO format FORMAT CSV`: right after INTO, TABLE, FUNCTION or a dot, a word is a name.
        let is_name = token.is_name()
            && previous.is_none_or(|p| p.is("into") || p.is("table") && !named || p.is("function") || p.is_mark('.'));
        match token.kind {
            Kind::Punctuation('(') => depth += 1,
            Kind::Punctuation(')') => depth -= 1,
            _ if depth > 0 => {}
            Kind::Unclosed | Kind::Punctuation(';') => return Ok(None),
            _ if is_name && !(token.is("into") || token.is("table") || token.is("function")) => named = true,
            Kind::Word if !named => {}
            Kind::Word if token.is("settings") => settings = true,
            Kind::Word if token.is("infile") && previous.is_some_and(|p| p.is("from")) => {
                return Err(Refusal::FromInfile);
            }
            Kind::Word if token.is("select") || token.is("with") && !settings || token.is("watch") => return Ok(None),
            Kind::Word if token.is("values") => {
                return Ok(Some(Insert {
                    statement: sql[..token.start].trim_end().to_owned(),
                    format: "Values".to_owned(),
                    data_at: token.end,
                }));
            }
            Kind::Word if token.is("format") => {
                let Some(name) = lexer.next().filter(Token::is_name) else { return Ok(None) };
                return Ok(Some(Insert {
                    statement: sql[..token.start].trim_end().to_owned(),
                    format: name.text.trim_matches(['`', '"']).to_owned(),
                    data_at: data_start(sql.as_bytes(), name.end),
                }));
            }
            _ => {}
        }
        previous = Some(token);
    }
    Ok(None)
}

/// Behind the format's name: blanks up to and with one line end, as in ClickHouse's own parser. Also one `;`, which
/// clients put where no data follows in the statement.
fn data_start(text: &[u8], mut at: usize) -> usize {
    let blanks = |mut at: usize| {
        while text.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\x0c')) {
            at += 1;
        }
        at
    };
    at = blanks(at);
    if text.get(at) == Some(&b';') {
        at = blanks(at + 1);
    }
    if text.get(at) == Some(&b'\r') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

/// Finds the FORMAT clause, which ends a statement but for SETTINGS, and refuses INTO OUTFILE anywhere.
fn other(sql: &str) -> Result<Statement, Refusal> {
    let mut format = None;
    let mut is_select = false;
    let mut before: Option<Token<'_>> = None;
    for (n, token) in Lexer::new(sql).enumerate() {
        if n == 0 {
            is_select = token.is("select") || token.is("with") || token.is("from") || token.is_mark('(');
        }
        if let Some(previous) = before {
            if previous.is("into") && token.is("outfile") {
                return Err(Refusal::IntoOutfile);
            }
            if previous.is("from") && token.is("infile") {
                return Err(Refusal::FromInfile);
            }
            if previous.is("format") && token.is_name() {
                format = Some((token.text.trim_matches(['`', '"']).to_owned(), token.end));
            }
        }
        before = Some(token);
    }
    // `SELECT 1 AS format, x …`: only a FORMAT that nothing but SETTINGS or `;` follows is the clause.
    let format = format.filter(|(_, end)| {
        let mut rest = Lexer::new(sql);
        rest.seek(*end);
        rest.next().is_none_or(|t| t.is("settings") || t.is_mark(';'))
    });
    Ok(Statement::Other { format: format.map(|(name, _)| name), is_select })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::Strategy;

    use super::*;

    fn cut(sql: &str) -> Option<(String, String, String)> {
        match parse(sql.as_bytes()) {
            Ok(Statement::Insert(i)) => Some((i.statement, i.format, sql[i.data_at..].to_owned())),
            _ => None,
        }
    }

    #[test]
    fn an_insert_is_cut_at_its_data() {
        let cases = [
            ("INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t", "CSV", "1,2\n"),
            (
                "insert into a.b (x, y) format JSONEachRow {\"x\":1}",
                "insert into a.b (x, y)",
                "JSONEachRow",
                "{\"x\":1}",
            ),
            ("INSERT INTO t VALUES (1),(2)", "INSERT INTO t", "Values", " (1),(2)"),
            ("INSERT INTO format FORMAT TSV\n1", "INSERT INTO format", "TSV", "1"),
            (
                "INSERT INTO TABLE `values` (`format`) VALUES (1)",
                "INSERT INTO TABLE `values` (`format`)",
                "Values",
                " (1)",
            ),
            (
                "INSERT INTO t SETTINGS async_insert=1 FORMAT RowBinary\n",
                "INSERT INTO t SETTINGS async_insert=1",
                "RowBinary",
                "",
            ),
            ("INSERT INTO t (a) FORMAT Native;\nx", "INSERT INTO t (a)", "Native", "x"),
            (
                "/* c */ INSERT INTO FUNCTION null('a Int') VALUES (1)",
                "/* c */ INSERT INTO FUNCTION null('a Int')",
                "Values",
                " (1)",
            ),
            ("INSERT INTO default.select FORMAT CSV\n1", "INSERT INTO default.select", "CSV", "1"),
        ];
        for (sql, statement, format, data) in cases {
            assert_eq!(cut(sql), Some((statement.into(), format.into(), data.into())), "{sql}");
        }
    }

    #[test]
    fn binary_data_may_follow_a_statement() {
        let mut text = b"INSERT INTO t FORMAT RowBinary\n".to_vec();
        let at = text.len();
        text.extend([0xff, 0x00, 0x80]);
        assert!(matches!(parse(&text), Ok(Statement::Insert(i)) if i.data_at == at));
        assert_eq!(parse(b"SELECT '\xff'"), Err(Refusal::NotUtf8));
    }

    #[test]
    fn an_insert_without_data_is_an_ordinary_statement() {
        for sql in [
            "INSERT INTO t SELECT 1",
            "INSERT INTO t (a) WITH 1 AS x SELECT x",
            "INSERT INTO t (SELECT 1) ",
            "INSERT INTO t",
        ] {
            assert!(matches!(parse(sql.as_bytes()), Ok(Statement::Other { .. })), "{sql}");
        }
    }

    #[test]
    fn the_format_clause_is_found_only_where_it_is_one() {
        let format = |sql: &str| match parse(sql.as_bytes()) {
            Ok(Statement::Other { format, .. }) => format,
            other => panic!("{other:?}"),
        };
        assert_eq!(format("SELECT 1 FORMAT JSON").as_deref(), Some("JSON"));
        assert_eq!(format("SELECT 1 format TSV SETTINGS max_threads=1;").as_deref(), Some("TSV"));
        assert_eq!(format("SELECT format x FROM t"), None);
        assert_eq!(format("SELECT ' FORMAT CSV'"), None);
    }

    #[test]
    fn files_of_the_client_side_are_refused() {
        assert_eq!(parse(b"SELECT 1 INTO OUTFILE '/tmp/x'"), Err(Refusal::IntoOutfile));
        assert_eq!(parse(b"SELECT 1 into /* c */ outfile '/tmp/x'"), Err(Refusal::IntoOutfile));
        assert_eq!(parse(b"INSERT INTO t FROM INFILE '/etc/passwd' FORMAT CSV"), Err(Refusal::FromInfile));
        assert_eq!(parse(b"-- nothing\n "), Err(Refusal::Empty));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(
            text in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::sample::select(vec![
                        "INSERT ", "INTO ", "t", "FORMAT ", "VALUES ", "SELECT ", "(", ")", "'", "`", "\"", "$$", "$a$", "--", "/*",
                        "*/", "\n", ";", "SETTINGS ", "‘", "“", "\\", ".", "FUNCTION ", "=", "1e5", "é", "\0", "INFILE", "FROM ",
                    ]).prop_map(|s| s.as_bytes().to_vec()),
                    proptest::collection::vec(proptest::num::u8::ANY, 0..4),
                ],
                0..40,
            )
        ) {
            let text = text.concat();
            if let Ok(Statement::Insert(insert)) = parse(&text) {
                proptest::prop_assert!(insert.data_at <= text.len());
                proptest::prop_assert!(text.starts_with(insert.statement.as_bytes()));
            }
            let readable = readable_prefix(&text);
            let mut end = 0;
            for token in Lexer::new(readable) {
                proptest::prop_assert!(token.start >= end && token.end > token.start);
                proptest::prop_assert_eq!(&readable[token.start..token.end], token.text);
                end = token.end;
            }
        }
    }
}
