//! What went wrong with ClickHouse, and what that means for the caller.

use std::fmt;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server does not answer, or not now: try again later. Every step may be repeated, also one that a lost
    /// answer only makes look failed.
    Unavailable,
    /// The server refuses this user: pause, alarm, and try again now and then. Never drop data.
    Auth,
    /// A table is gone: run [`super::Client::prepare`] again and rebuild the window states from Bronze.
    Missing,
    /// Nobody but an operator can help: stop this aggregate and say so.
    Permanent,
}

/// An error from ClickHouse: what was tried, where, what the server said, and what to do.
#[derive(Debug, Clone)]
pub struct Error {
    pub kind: ErrorKind,
    /// What was tried, such as "insert into realtime.positions".
    pub what: String,
    /// The server's address, without credentials.
    pub server: String,
    /// ClickHouse's error code, where it gave one.
    pub code: Option<u32>,
    pub message: String,
    pub advice: &'static str,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}; {}", self.what, self.server, self.message, self.advice)
    }
}

impl std::error::Error for Error {}

const RETRY: &str = "it is tried again";
const CHECK_USER: &str = "check clickhouse.user and clickhouse.password (or password_file), and the user's grants on the database `realtime`";
const PREPARE: &str = "the tables are made again and the windows rebuilt from Bronze";
const FIX: &str = "this needs an operator: see the server's message";

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: &str, server: &str, message: impl Into<String>) -> Self {
        let advice = match kind {
            ErrorKind::Unavailable => RETRY,
            ErrorKind::Auth => CHECK_USER,
            ErrorKind::Missing => PREPARE,
            ErrorKind::Permanent => FIX,
        };
        Self { kind, what: what.into(), server: server.into(), code: None, message: message.into(), advice }
    }

    pub(super) fn timeout(what: &str, server: &str, limit: std::time::Duration) -> Self {
        Self::new(ErrorKind::Unavailable, what, server, format!("no answer within {limit:?}"))
    }

    pub(super) fn from_client(what: &str, server: &str, error: &clickhouse::error::Error) -> Self {
        use clickhouse::error::Error as Cause;
        let mut message = one_line(&error.to_string());
        let (kind, code) = match error {
            Cause::Network(source) => {
                // The outer message is only "client error (Connect)"; the reason is further in.
                let mut next = source.source();
                while let Some(inner) = next {
                    message = format!("{message}: {}", one_line(&inner.to_string()));
                    next = inner.source();
                }
                (ErrorKind::Unavailable, None)
            }
            Cause::TimedOut | Cause::Decompression(_) => (ErrorKind::Unavailable, None),
            Cause::BadResponse(text) => {
                let code = code_of(text);
                (code.map_or_else(|| kind_of_status(text), kind_of_code), code)
            }
            _ => (ErrorKind::Permanent, None),
        };
        Self { code, ..Self::new(kind, what, server, message) }
    }
}

/// The server's text without line breaks, and of bounded length: it may quote data.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > 600 {
        let end = (0..=600).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

/// `Code: 516. DB::Exception: …` → 516.
fn code_of(text: &str) -> Option<u32> {
    let digits = text.split_once("Code: ")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// An answer without a code comes from a proxy or from a server that is starting or stopping.
fn kind_of_status(text: &str) -> ErrorKind {
    match text.trim().get(..3) {
        Some("401" | "403") => ErrorKind::Auth,
        _ => ErrorKind::Unavailable,
    }
}

/// Codes of ClickHouse's ErrorCodes.cpp.
fn kind_of_code(code: u32) -> ErrorKind {
    match code {
        // UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, IP_ADDRESS_NOT_ALLOWED, READONLY, ACCESS_DENIED,
        // AUTHENTICATION_FAILED
        192..=195 | 164 | 497 | 516 => ErrorKind::Auth,
        // UNKNOWN_TABLE, UNKNOWN_DATABASE
        60 | 81 => ErrorKind::Missing,
        // CANNOT_READ_ALL_DATA, CANNOT_READ_FROM_FILE_DESCRIPTOR, CANNOT_WRITE_TO_FILE_DESCRIPTOR (a full disk),
        // CANNOT_OPEN_FILE, CANNOT_CLOSE_FILE, TIMEOUT_EXCEEDED, TOO_SLOW, TOO_MANY_SIMULTANEOUS_QUERIES, SOCKET_TIMEOUT,
        // NETWORK_ERROR, ABORTED, MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY, NOT_ENOUGH_SPACE, TOO_MANY_PARTS,
        // TOO_FEW_LIVE_REPLICAS, UNKNOWN_STATUS_OF_INSERT, QUERY_WAS_CANCELLED, SYSTEM_ERROR, CANNOT_SCHEDULE_TASK,
        // DEADLOCK_AVOIDED, KEEPER_EXCEPTION, POCO_EXCEPTION, STD_EXCEPTION
        33
        | 74..=77
        | 159
        | 160
        | 202
        | 209
        | 210
        | 236
        | 241..=243
        | 252
        | 285
        | 319
        | 394
        | 425
        | 439
        | 473
        | 999
        | 1000
        | 1001 => ErrorKind::Unavailable,
        _ => ErrorKind::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(response: &str, kind: ErrorKind, code: Option<u32>) {
        let error = Error::from_client("x", "y", &clickhouse::error::Error::BadResponse(response.into()));
        assert_eq!((error.kind, error.code), (kind, code));
    }

    #[test]
    fn the_code_decides() {
        check("Code: 516. DB::Exception: default: Authentication failed", ErrorKind::Auth, Some(516));
        check("Code: 60. DB::Exception: Table realtime.x does not exist", ErrorKind::Missing, Some(60));
        check("Code: 243. DB::Exception: Cannot reserve 1.00 MiB", ErrorKind::Unavailable, Some(243));
        check("Code: 16. DB::Exception: No such column", ErrorKind::Permanent, Some(16));
        check("502 Bad Gateway", ErrorKind::Unavailable, None);
        check("401 Unauthorized", ErrorKind::Auth, None);
    }

    #[test]
    fn a_long_message_is_cut() {
        let error = Error::from_client("x", "y", &clickhouse::error::Error::BadResponse("ä ".repeat(1000)));
        assert!(error.message.len() < 620, "{}", error.message.len());
    }
}
