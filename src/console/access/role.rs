//! What a caller may do, and what a request asks for. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Each may what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks at everything but the configuration, and asks queries that only read.
    Viewer,
    /// Starts, stops and repairs.
    Operator,
    /// Sees the configuration and the audit log, and manages users.
    Admin,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no role; the roles are viewer, operator and admin"))
    }
}

/// Whether a path is for everybody: health, the sign-in page and what it looks like.
pub fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/login" | "/favicon.ico") || path.starts_with("/assets/")
}

/// What somebody may change about their own session or ask without changing anything, whatever their role.
const ANYBODYS_POSTS: [&str; 7] =
    ["/logout", "/theme", "/password", "/sql", "/sql/cancel", "/api/v1/sql", "/api/v1/sql/cancel"];
/// What admins alone may see, with everything below it.
const ADMINS: [&str; 7] =
    ["/users", "/audit", "/configuration", "/api/v1/users", "/api/v1/tokens", "/api/v1/audit", "/api/v1/configuration"];

/// The role that a request needs. Whatever is no plain reading needs an operator, unless it is listed: a page that is
/// added later and forgotten here is closed, not open.
pub fn needed(reads: bool, path: &str) -> Role {
    let below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if ADMINS.iter().any(|top| below(top)) {
        Role::Admin
    } else if reads || ANYBODYS_POSTS.contains(&path) {
        Role::Viewer
    } else {
        Role::Operator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_closed() {
        assert_eq!(needed(true, "/batch"), Role::Viewer);
        assert_eq!(needed(false, "/batch/run"), Role::Operator);
        assert_eq!(needed(false, "/something/new"), Role::Operator);
        assert_eq!(needed(false, "/api/v1/sql"), Role::Viewer);
        assert_eq!(needed(false, "/api/v1/sqlx"), Role::Operator);
        for path in ["/users", "/users/x/remove", "/audit", "/api/v1/configuration"] {
            assert_eq!(needed(true, path), Role::Admin, "{path}");
        }
        assert_eq!(needed(true, "/usersx"), Role::Viewer);
    }

    #[test]
    fn little_is_public() {
        for path in ["/healthz", "/login", "/assets/console.css"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["/", "/login/x", "/assets", "/live/overview", "/api/v1/openapi.json", "/healthz/"] {
            assert!(!is_public(path), "{path}");
        }
    }

    #[test]
    fn roles_are_ordered_and_read_back() {
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Viewer);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
