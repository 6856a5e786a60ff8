//! Where one SQL statement ends and the next begins.

/// The statements of a text, without their semicolons; and whether the last one was ended by one.
pub(super) fn split(text: &str) -> (Vec<String>, bool) {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ';' => {
                push(&mut statements, &mut current);
                continue;
            }
            '-' if chars.peek() == Some(&'-') => {
                // Comments go: some servers take a text of comments alone for an empty statement.
                for c in chars.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
                current.push('\n');
                continue;
            }
            '/' if chars.peek() == Some(&'*') => {
                skip_comment(&mut chars);
                current.push(' ');
                continue;
            }
            '\'' | '"' | '`' => {
                current.push(c);
                for inside in chars.by_ref() {
                    current.push(inside);
                    // A doubled quote ends one quotation and begins the next: the same text.
                    if inside == c {
                        break;
                    }
                }
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    let ended = current.trim().is_empty() && !open_quote(text);
    push(&mut statements, &mut current);
    (statements, ended)
}

/// Passes over a comment whose first slash has been taken.
fn skip_comment(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    chars.next();
    let mut star = false;
    for c in chars {
        if star && c == '/' {
            return;
        }
        star = c == '*';
    }
}

/// Whether a text ends inside quotes.
pub(super) fn open_quote(text: &str) -> bool {
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' | '`' => quote = Some(c),
                '-' if chars.peek() == Some(&'-') => while chars.next().is_some_and(|c| c != '\n') {},
                '/' if chars.peek() == Some(&'*') => skip_comment(&mut chars),
                _ => {}
            },
        }
    }
    quote.is_some()
}

fn push(statements: &mut Vec<String>, current: &mut String) {
    let statement = std::mem::take(current);
    if !statement.trim().is_empty() {
        statements.push(statement.trim().to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str], ended: bool) {
        assert_eq!(split(text), (expected.iter().map(|s| s.to_string()).collect(), ended), "{text}");
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        check("select 1", &["select 1"], false);
        check("select 1; select 2;", &["select 1", "select 2"], true);
        check("select ';', \";\", `;`;", &["select ';', \";\", `;`"], true);
        check("select 'it''s;' ;\n", &["select 'it''s;'"], true);
        check("select 1 -- not; here\n, 2;", &["select 1 \n, 2"], true);
        check("select /* ; ' */ 1;", &["select   1"], true);
        check("-- nothing\n", &[], true);
        check(";;", &[], true);
    }

    #[test]
    fn quotes_stay_open_until_closed() {
        assert!(open_quote("select 'a;"));
        assert!(!open_quote("select 'a';"));
        assert!(!open_quote("select 1 -- it's\n"));
    }
}
