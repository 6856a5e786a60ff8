//! Errors as ClickHouse gives them: a code, its text and the HTTP status that goes with it.

/// An error of the engine, or one that this server raises in the engine's manner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// ClickHouse's error code; clients decide by it.
    pub code: i32,
    /// `Code: N. DB::Exception: … (NAME)`
    pub message: String,
}

/// Codes that this server raises itself, with the names ClickHouse gives them.
pub mod code {
    pub const NOT_IMPLEMENTED: (i32, &str) = (48, "NOT_IMPLEMENTED");
    pub const SYNTAX_ERROR: (i32, &str) = (62, "SYNTAX_ERROR");
    pub const UNKNOWN_SETTING: (i32, &str) = (115, "UNKNOWN_SETTING");
    pub const INCORRECT_DATA: (i32, &str) = (117, "INCORRECT_DATA");
    pub const CHECKSUM_DOESNT_MATCH: (i32, &str) = (40, "CHECKSUM_DOESNT_MATCH");
    pub const INTO_OUTFILE_NOT_ALLOWED: (i32, &str) = (358, "INTO_OUTFILE_NOT_ALLOWED");
    pub const UNKNOWN_TYPE_OF_QUERY: (i32, &str) = (78, "UNKNOWN_TYPE_OF_QUERY");
    pub const TOO_MANY_SIMULTANEOUS_QUERIES: (i32, &str) = (202, "TOO_MANY_SIMULTANEOUS_QUERIES");
    pub const QUERY_IS_TOO_LARGE: (i32, &str) = (229, "QUERY_IS_TOO_LARGE");
    pub const CANNOT_DECOMPRESS: (i32, &str) = (271, "CANNOT_DECOMPRESS");
    pub const SERVER_OVERLOADED: (i32, &str) = (745, "SERVER_OVERLOADED");
    pub const ACCESS_DENIED: (i32, &str) = (497, "ACCESS_DENIED");
    pub const AUTHENTICATION_FAILED: (i32, &str) = (516, "AUTHENTICATION_FAILED");
    pub const STD_EXCEPTION: (i32, &str) = (1001, "STD_EXCEPTION");
}

impl EngineError {
    /// An error of this server's own, worded as the engine words its own.
    pub fn new((code, name): (i32, &str), text: impl std::fmt::Display) -> Self {
        Self { code, message: format!("Code: {code}. DB::Exception: {text} ({name})") }
    }

    /// A failure without a code of its own.
    pub fn internal(text: impl std::fmt::Display) -> Self {
        Self::new(code::STD_EXCEPTION, text)
    }

    /// Reads the code out of a text of the engine.
    pub fn parse(message: &str) -> Self {
        let message = message.trim_end();
        // The binding puts "Error: " before what it caught itself.
        let from = message.find("Code: ").unwrap_or(0);
        let digits: String = message[from..]
            .strip_prefix("Code: ")
            .unwrap_or_default()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        match digits.parse() {
            Ok(code) => Self { code, message: message[from..].to_owned() },
            Err(_) => Self::internal(message),
        }
    }

    /// The HTTP status that ClickHouse sends with this code (its `exceptionCodeToHTTPStatus`, and 503 for too many
    /// queries, so that clients and proxies know to come back).
    pub fn http_status(&self) -> u16 {
        match self.code {
            194 => 401,
            // UNKNOWN_USER, WRONG_PASSWORD, AUTHENTICATION_FAILED, ACCESS_DENIED, SET_NON_GRANTED_ROLE
            192 | 193 | 516 | 497 | 512 => 403,
            // BAD_ARGUMENTS, CANNOT_PARSE_*, SYNTAX_ERROR, TYPE_MISMATCH and their like
            36 | 427 | 6 | 25 | 26 | 27 | 37 | 38 | 41 | 72 | 376 | 441 | 675 | 676 | 15 | 44 | 8 | 123 | 167 | 168
            | 223 | 321 | 62 | 117 | 53 => 400,
            // UNKNOWN_TABLE, _FUNCTION, _IDENTIFIER, _TYPE, _STORAGE, _DATABASE, _SETTING and their like
            60 | 46 | 47 | 50 | 56 | 81 | 115 | 152 | 63 | 73 | 336 | 78 | 511 => 404,
            229 => 413,
            48 => 501,
            // SOCKET_TIMEOUT, CANNOT_OPEN_FILE, CANNOT_SCHEDULE_TASK, TOO_MANY_SIMULTANEOUS_QUERIES, SERVER_OVERLOADED
            209 | 76 | 439 | 202 | 745 => 503,
            381 => 411,
            159 => 408,
            779 => 415,
            _ => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_read_and_mapped_to_a_status() {
        let e = EngineError::parse("Code: 60. DB::Exception: Table default.t does not exist. (UNKNOWN_TABLE)\n");
        assert_eq!((e.code, e.http_status()), (60, 404));
        assert!(e.message.ends_with("(UNKNOWN_TABLE)"));
        let e = EngineError::parse("Error: Code: 62. DB::Exception: Syntax error");
        assert_eq!((e.code, e.http_status(), e.message.starts_with("Code: 62.")), (62, 400, true));
        let e = EngineError::parse("something else");
        assert_eq!((e.code, e.http_status()), (1001, 500));
    }
}
