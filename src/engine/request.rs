//! What one HTTP request asks for: ClickHouse's parameters and headers, read into a value.

use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use base64::Engine as _;

use super::error::{EngineError, code};
use super::form;
use super::lexer::Lexer;

/// Everything a request says beside its body.
#[derive(Debug, Default)]
pub struct Request {
    /// The `query` parameter.
    pub query: String,
    pub database: Option<String>,
    /// Output format for statements without a FORMAT clause.
    pub default_format: Option<String>,
    pub query_id: Option<String>,
    /// `{name:Type}` placeholders.
    pub params: Vec<(String, String)>,
    /// Engine settings, in the order given.
    pub settings: Vec<(String, String)>,
    /// The response goes out in ClickHouse's own block framing.
    pub compress: bool,
    /// The body came in ClickHouse's own block framing.
    pub decompress: bool,
    /// `enable_http_compression=1`: honour Accept-Encoding.
    pub http_compression: bool,
    pub content_encoding: Option<String>,
    pub accept_encoding: Option<String>,
    /// The body is a form that holds further parameters.
    pub form_boundary: Option<String>,
    /// The whole result before the first byte of the response.
    pub wait_end_of_query: bool,
    /// A GET may not write.
    pub readonly: bool,
    /// The client named a session. Nothing is kept for it; see [`Request::check_session`].
    pub session: bool,
}

/// Who the request says it comes from.
#[derive(PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

/// Names that are no settings: they steer the HTTP interface or mean nothing here.
const IGNORED: [&str; 11] = [
    "session_check",
    "session_timeout",
    "user",
    "password",
    "quota_key",
    "buffer_size",
    "stacktrace",
    "client_protocol_version",
    "http_write_exception_in_output_format",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
];

impl Request {
    /// Reads a request's query string and headers.
    pub fn parse(method: &Method, query_string: &str, headers: &HeaderMap) -> Result<Self, EngineError> {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut request = Self {
            readonly: method == Method::GET,
            database: header("X-ClickHouse-Database"),
            default_format: header("X-ClickHouse-Format"),
            content_encoding: header("Content-Encoding"),
            accept_encoding: header("Accept-Encoding"),
            form_boundary: header("Content-Type").as_deref().and_then(form::boundary),
            ..Self::default()
        };
        for (name, value) in url::form_urlencoded::parse(query_string.as_bytes()) {
            request.take(&name, value.into_owned())?;
        }
        request.database = request.database.filter(|d| !d.is_empty());
        Ok(request)
    }

    /// Takes one parameter, of the URL or of a form.
    pub fn take(&mut self, name: &str, value: String) -> Result<(), EngineError> {
        let flag = |value: &str| matches!(value, "1" | "true");
        match name {
            "query" => self.query = value,
            "database" => self.database = Some(value),
            "default_format" => self.default_format = Some(value),
            "query_id" => self.query_id = Some(value),
            "compress" => self.compress = flag(&value),
            "decompress" => self.decompress = flag(&value),
            "enable_http_compression" => self.http_compression = flag(&value),
            "wait_end_of_query" | "http_wait_end_of_query" => self.wait_end_of_query = flag(&value),
            "session_id" => self.session = !value.is_empty(),
            "role" => return Err(unsupported("the role parameter")),
            _ if IGNORED.contains(&name) => {}
            _ => match name.strip_prefix("param_") {
                Some(param) => self.params.push((param.to_owned(), value)),
                None => self.settings.push((setting_name(name)?.to_owned(), value)),
            },
        }
        Ok(())
    }

    /// Clients such as clickhouse-connect name a session in every request without using it. That is fine; a statement
    /// that would have to outlive its request is refused, so that nobody counts on what is not kept.
    pub fn check_session(&self, sql: &str) -> Result<(), EngineError> {
        let words: Vec<String> = Lexer::new(sql).take(3).map(|t| t.text.to_ascii_lowercase()).collect();
        let kept = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["set" | "use", ..] => true,
            ["create", "temporary", ..] | ["create", "or", "replace"] => sql.to_ascii_lowercase().contains("temporary"),
            _ => false,
        };
        if self.session && kept {
            return Err(unsupported(
                "HTTP sessions (session_id): every request is a session of its own, so SET, USE and temporary tables do \
                 not outlive it; send settings and database as URL parameters",
            ));
        }
        Ok(())
    }

    /// The `SET` statement for the request's settings; `None` without settings.
    pub fn set_statement(&self) -> Option<String> {
        if self.settings.is_empty() {
            return None;
        }
        let assign = |(name, value): &(String, String)| {
            format!("{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
        };
        Some(format!("SET {}", self.settings.iter().map(assign).collect::<Vec<_>>().join(", ")))
    }
}

/// A setting's name goes into a statement, so it must be one.
fn setting_name(name: &str) -> Result<&str, EngineError> {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain {
        Ok(name)
    } else {
        Err(EngineError::new(
            code::UNKNOWN_SETTING,
            format_args!("Setting {} is neither a builtin setting nor a valid name", name.escape_default()),
        ))
    }
}

fn unsupported(what: &str) -> EngineError {
    EngineError::new(code::NOT_IMPLEMENTED, format_args!("This server does not support {what}."))
}

/// Refuses what a web page sends through somebody's browser to a server that asks for no password: pages of other sites
/// carry an Origin, and a name that an attacker points at 127.0.0.1 is no loopback name.
pub fn check_not_a_page(headers: &HeaderMap) -> Result<(), EngineError> {
    let header = |name: &str| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let host = header("Host").unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, port)| match port.parse::<u16>() {
        Ok(_) => name,
        Err(_) => host.as_str(),
    });
    let bare = name.trim_matches(['[', ']']);
    let local = bare.is_empty() || bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok();
    if header("Origin").is_none() && local {
        return Ok(());
    }
    Err(EngineError::new(
        code::ACCESS_DENIED,
        "a web page may not use a server without passwords; start it with --users, or speak to 127.0.0.1 from a program",
    ))
}

/// Reads the credentials: X-ClickHouse headers, basic authentication or URL parameters, but only one of them.
pub fn credentials(query_string: &str, headers: &HeaderMap) -> Result<Credentials, EngineError> {
    let header = |name: &str| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let param = |name: &str| {
        url::form_urlencoded::parse(query_string.as_bytes()).find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
    };
    let wrong = |text: &str| EngineError::new(code::AUTHENTICATION_FAILED, text);
    let by_header = (header("X-ClickHouse-User"), header("X-ClickHouse-Key"));
    let by_param = (param("user"), param("password"));
    let basic = header(AUTHORIZATION.as_str());
    let ways = usize::from(by_header != (None, None)) + usize::from(basic.is_some());
    if ways > 1 || ways == 1 && by_param != (None, None) {
        return Err(wrong(
            "Invalid authentication: use one of X-ClickHouse headers, basic authentication or URL parameters",
        ));
    }
    let named = |user: Option<String>, password: Option<String>| Credentials {
        user: user.filter(|u| !u.is_empty()).unwrap_or_else(|| "default".to_owned()),
        password: password.unwrap_or_default(),
    };
    if let Some(basic) = basic {
        let (scheme, encoded) = basic.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(wrong("Invalid authentication: only the Basic scheme is supported"));
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok();
        let text = decoded
            .and_then(|d| String::from_utf8(d).ok())
            .ok_or_else(|| wrong("Invalid authentication: not base64 of user:password"))?;
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        return Ok(named(Some(user.to_owned()), Some(password.to_owned())));
    }
    if by_header != (None, None) {
        return Ok(named(by_header.0, by_header.1));
    }
    Ok(named(by_param.0, by_param.1))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn parameters_are_told_from_settings() {
        let r = Request::parse(
            &Method::POST,
            "query=SELECT+1&database=d&param_x=a%09b&max_threads=2&compress=1&log_comment=it's%5C&buffer_size=9",
            &headers(&[("Accept-Encoding", "gzip")]),
        )
        .unwrap();
        assert_eq!(
            (r.query.as_str(), r.database.as_deref(), r.compress, r.readonly),
            ("SELECT 1", Some("d"), true, false)
        );
        assert_eq!(r.params, [("x".to_owned(), "a\tb".to_owned())]);
        assert_eq!(r.set_statement().unwrap(), r"SET max_threads = '2', log_comment = 'it\'s\\'");
    }

    #[test]
    fn names_that_could_carry_sql_are_refused() {
        for query in ["a%20%3D1%2Cb=1", "1x=2", "=1", "a%3B=1"] {
            let error = Request::parse(&Method::POST, query, &HeaderMap::new()).unwrap_err();
            assert_eq!((error.code, error.http_status()), (115, 404), "{query}");
        }
        let request = Request::parse(&Method::GET, "session_id=x", &HeaderMap::new()).unwrap();
        assert!(request.check_session("SELECT 1").is_ok());
        for sql in [
            "SET a = 1",
            "/* c */ use d",
            "CREATE TEMPORARY TABLE t (a Int8)",
            "CREATE OR REPLACE TEMPORARY TABLE t (a Int8)",
        ] {
            assert_eq!(request.check_session(sql).map_err(|e| e.http_status()), Err(501), "{sql}");
        }
    }

    #[test]
    fn a_page_in_a_browser_is_told_from_a_program() {
        let check = |pairs: &[(&'static str, &'static str)]| check_not_a_page(&headers(pairs)).is_ok();
        assert!(check(&[]) && check(&[("Host", "127.0.0.1:8123")]) && check(&[("Host", "[::1]:8123")]));
        assert!(check(&[("Host", "localhost")]));
        assert!(!check(&[("Host", "evil.example:8123")]));
        assert!(!check(&[("Host", "127.0.0.1:8123"), ("Origin", "http://evil.example")]));
        assert!(!check(&[("Host", "127.0.0.1.evil.example")]));
    }

    #[test]
    fn credentials_come_in_one_way_only() {
        let read = |query: &str, pairs: &[(&'static str, &'static str)]| {
            credentials(query, &headers(pairs)).map(|c| (c.user, c.password)).map_err(|e| e.code)
        };
        let got = |user: &str, password: &str| Ok((user.to_owned(), password.to_owned()));
        assert_eq!(read("", &[]), got("default", ""));
        assert_eq!(read("user=u&password=p%20q", &[]), got("u", "p q"));
        assert_eq!(read("", &[("X-ClickHouse-User", "u"), ("X-ClickHouse-Key", "k")]), got("u", "k"));
        assert_eq!(read("", &[("Authorization", "Basic dTpwOnE=")]), got("u", "p:q"));
        assert_eq!(read("", &[("Authorization", "Basic ???")]), Err(516));
        assert_eq!(read("user=u", &[("Authorization", "Basic dTpw")]), Err(516));
    }
}
