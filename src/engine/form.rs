//! Request parameters in a `multipart/form-data` body, as clients send them when a URL would grow too long.

use super::error::{EngineError, code};

/// The boundary that a Content-Type names, if it is a form's.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let named = rest.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?;
    Some(named.trim_matches('"').to_owned())
}

/// The fields of a form, in their order.
pub fn fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, EngineError> {
    let wrong = |text: &str| EngineError::new(code::INCORRECT_DATA, format_args!("multipart/form-data body: {text}"));
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter stands at the very start, without a line end before it.
    let first = &delimiter.as_bytes()[2..];
    let mut rest = body.strip_prefix(first).ok_or_else(|| wrong("it does not start with its boundary"))?;
    let mut fields = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| wrong("a boundary is not followed by a line end"))?;
        let end = find(rest, delimiter.as_bytes()).ok_or_else(|| wrong("it ends inside a field"))?;
        let part = &rest[..end];
        rest = &rest[end + delimiter.len()..];
        let head_end = find(part, b"\r\n\r\n").ok_or_else(|| wrong("a field has no end of its headers"))?;
        let head = String::from_utf8_lossy(&part[..head_end]);
        if head.contains("filename=") {
            return Err(EngineError::new(
                code::NOT_IMPLEMENTED,
                "This server does not support external tables (files in a multipart/form-data body).",
            ));
        }
        let name = head.split("name=\"").nth(1).and_then(|n| n.split('"').next());
        let name = name.ok_or_else(|| wrong("a field has no name"))?;
        let value = String::from_utf8(part[head_end + 4..].to_vec()).map_err(|_| wrong("a field is not UTF-8"))?;
        fields.push((name.to_owned(), value));
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_broken_forms_refused() {
        let form = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT\r\n--x\r\n--b\r\nContent-Disposition: \
                    form-data; name=\"param_a\"\r\n\r\n1\r\n--b--\r\n";
        let got = fields(form.as_bytes(), "b").unwrap();
        assert_eq!(got, [("query".into(), "SELECT\r\n--x".into()), ("param_a".into(), "1".to_owned())]);
        assert_eq!(boundary("multipart/form-data; boundary=\"b\"").as_deref(), Some("b"));
        assert_eq!(boundary("text/plain; boundary=b"), None);
        for cut in [0, 5, 40, form.len() - 6] {
            assert!(fields(&form.as_bytes()[..cut], "b").is_err(), "{cut}");
        }
        let file = form.replace("name=\"param_a\"", "name=\"t\"; filename=\"x\"");
        assert_eq!(fields(file.as_bytes(), "b").unwrap_err().code, 48);
    }
}
