//! Who may use the server. Passwords are kept as SHA-256, compared in constant time and never logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::error::{EngineError, code};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// SELECT, SHOW, DESCRIBE, EXPLAIN.
    Read,
    /// Also tables and rows: CREATE, INSERT, ALTER, DROP, OPTIMIZE.
    Write,
    /// Also SYSTEM, KILL, ATTACH, BACKUP and functions. Files and hosts stay closed.
    Admin,
}

/// One `[[user]]` of the users file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    #[serde(default = "default_access")]
    access: Access,
    password: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    password_sha256: Option<String>,
}

fn default_access() -> Access {
    Access::Write
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    #[serde(default)]
    user: Vec<UserEntry>,
}

/// A user as the server keeps it. `Debug` would show the hash, so there is none.
struct User {
    access: Access,
    password_sha256: Option<[u8; 32]>,
}

/// All users, by name.
pub struct Users {
    by_name: HashMap<String, User>,
}

/// A user who has proven who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub access: Access,
    /// They had to give a password.
    pub by_password: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("the users file {path} cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the users file {path} is not right: {message}")]
    Parse { path: PathBuf, message: String },
    #[error(
        "user `{user}`: {problem}; give one of password, password_file, password_env or password_sha256 (64 hex digits)"
    )]
    Password { user: String, problem: String },
    #[error("user `{0}` is there twice; names must differ")]
    Twice(String),
    #[error("the users file {0} names no user; add a [[user]] with name and password_file")]
    Empty(PathBuf),
    #[error(
        "refusing to listen on {0}, which other machines can reach, while user `{1}` has no password; listen on \
         127.0.0.1, or give --users a file in which every user has one"
    )]
    Exposed(IpAddr, String),
}

impl Users {
    /// Without a users file: `default` without a password, which [`Users::check_exposure`] lets pass on loopback only.
    pub fn open_default() -> Self {
        let user = User { access: Access::Write, password_sha256: None };
        Self { by_name: HashMap::from([("default".to_owned(), user)]) }
    }

    /// Reads a TOML file of `[[user]]` entries.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| UsersError::Read { path: path.to_owned(), source })?;
        let file: UsersFile = toml_edit::de::from_str(&text)
            // The error's text would quote the line, which may hold a password.
            .map_err(|e| UsersError::Parse { path: path.to_owned(), message: e.message().to_owned() })?;
        let base = path.parent().unwrap_or(Path::new("."));
        let mut by_name = HashMap::new();
        for entry in file.user {
            let name = entry.name.clone();
            let user = User { access: entry.access, password_sha256: password_hash(base, entry)? };
            if by_name.insert(name.clone(), user).is_some() {
                return Err(UsersError::Twice(name));
            }
        }
        if by_name.is_empty() {
            return Err(UsersError::Empty(path.to_owned()));
        }
        Ok(Self { by_name })
    }

    /// Refuses an address beyond loopback while anybody can come in without a password.
    pub fn check_exposure(&self, listen: IpAddr) -> Result<(), UsersError> {
        let open = self.by_name.iter().find(|(_, u)| u.password_sha256.is_none());
        match open {
            Some((name, _)) if !listen.is_loopback() => Err(UsersError::Exposed(listen, name.clone())),
            _ => Ok(()),
        }
    }

    /// Checks a name and password. The answer does not tell which of the two was wrong.
    pub fn authenticate(&self, name: &str, password: &str) -> Result<Identity, EngineError> {
        let given: [u8; 32] = Sha256::digest(password.as_bytes()).into();
        let user = self.by_name.get(name);
        let right = match user.map(|u| u.password_sha256) {
            Some(Some(expected)) => constant_time_eq(&expected, &given),
            // As ClickHouse has it: drivers send something where nothing was set (clickhouse-jdbc the word `null`), and
            // whoever needs no password proves nothing by it.
            Some(None) => true,
            None => false,
        };
        match (right, user) {
            (true, Some(user)) => {
                let by_password = user.password_sha256.is_some();
                Ok(Identity { name: name.to_owned(), access: user.access, by_password })
            }
            _ => Err(EngineError::new(
                code::AUTHENTICATION_FAILED,
                format_args!(
                    "{}: Authentication failed: password is incorrect, or there is no user with such name.",
                    name.escape_default()
                ),
            )),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "`password_env` names the variable that holds the password")]
fn password_hash(base: &Path, entry: UserEntry) -> Result<Option<[u8; 32]>, UsersError> {
    let problem = |problem: String| UsersError::Password { user: entry.name.clone(), problem };
    let given = [
        entry.password.is_some(),
        entry.password_file.is_some(),
        entry.password_env.is_some(),
        entry.password_sha256.is_some(),
    ];
    match given.iter().filter(|g| **g).count() {
        0 => return Ok(None),
        1 => {}
        n => return Err(problem(format!("{n} passwords are given"))),
    }
    if let Some(hex) = &entry.password_sha256 {
        return parse_hex(hex).map(Some).ok_or_else(|| problem("password_sha256 is not 64 hex digits".to_owned()));
    }
    let plain = match (&entry.password, &entry.password_file, &entry.password_env) {
        (Some(plain), ..) => plain.clone(),
        (_, Some(file), _) => {
            let path = base.join(file);
            let text = std::fs::read_to_string(&path)
                .map_err(|e| problem(format!("its password_file {} cannot be read: {e}", path.display())))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (_, _, Some(name)) => {
            std::env::var(name).map_err(|_| problem(format!("the environment variable {name} is not set")))?
        }
        _ => String::new(),
    };
    if plain.is_empty() {
        return Err(problem("the password is empty".to_owned()));
    }
    Ok(Some(Sha256::digest(plain.as_bytes()).into()))
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

/// Takes the same time wherever the first difference is.
fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Users, UsersError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "from file\n").unwrap();
        let path = dir.path().join("users.toml");
        std::fs::write(&path, text).unwrap();
        Users::load(&path)
    }

    #[test]
    fn passwords_come_from_text_file_or_hash() {
        let users = load(
            r#"
            [[user]]
            name = "a"
            password = "plain"
            [[user]]
            name = "b"
            access = "admin"
            password_file = "secret"
            [[user]]
            name = "c"
            access = "read"
            password_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
            "#,
        )
        .unwrap();
        let access = |name, password| users.authenticate(name, password).map(|i| i.access).map_err(|e| e.code);
        assert_eq!(access("a", "plain"), Ok(Access::Write));
        assert_eq!(access("b", "from file"), Ok(Access::Admin));
        assert_eq!(access("c", "secret"), Ok(Access::Read));
        for (name, password) in [("a", ""), ("a", "Plain"), ("nobody", ""), ("c", "2bb8")] {
            assert_eq!(access(name, password), Err(516), "{name}");
        }
        assert!(users.check_exposure("0.0.0.0".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_server_without_passwords_stays_on_loopback() {
        let open = Users::open_default();
        assert!(open.check_exposure("127.0.0.1".parse().unwrap()).is_ok());
        assert!(open.check_exposure("::1".parse().unwrap()).is_ok());
        assert!(open.check_exposure("0.0.0.0".parse().unwrap()).is_err());
        assert!(open.authenticate("default", "").is_ok());
        let unasked = open.authenticate("default", "null").unwrap();
        assert!(
            !unasked.by_password && unasked.access == Access::Write,
            "a password that nobody asked for changes nothing"
        );
        assert!(open.authenticate("nobody", "").is_err());
    }

    #[test]
    fn mistakes_in_the_file_are_named_without_showing_a_password() {
        for (text, say) in [
            ("[[user]]\nname='a'\npassword='x'\npassword_env='Y'", "2 passwords"),
            ("[[user]]\nname='a'\npassword=''", "empty"),
            ("[[user]]\nname='a'\npassword_sha256='12'", "64 hex digits"),
            ("[[user]]\nname='a'\npassword_file='nope'", "cannot be read"),
            ("[[user]]\nname='a'\npasword='topsecret'", "unknown field"),
            ("[[user]]\nname='a'\n[[user]]\nname='a'", "twice"),
            ("", "names no user"),
        ] {
            let message = load(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(say) && !message.contains("topsecret"), "{text}: {message}");
        }
    }
}
