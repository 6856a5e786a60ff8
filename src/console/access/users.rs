//! Users and API tokens, in a file that its owner alone can read. Passwords are kept as argon2id hashes, tokens as
//! digests.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::role::Role;
use super::secret;

/// The user that the first start makes.
pub const FIRST_USER: &str = "admin";
const USERS: &str = "users.json";
const FIRST_PASSWORD: &str = "first-password";

/// Somebody who may sign in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    pub role: Role,
    password_hash: String,
    pub since: DateTime<Utc>,
}

/// A program that may call the API.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub name: String,
    pub role: Role,
    sha256: String,
    pub since: DateTime<Utc>,
}

/// What the file holds.
#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    pub users: Vec<User>,
    pub tokens: Vec<Token>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Users {
    /// The folder of the console's own files in the daemon's.
    pub fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join("console")
    }

    /// Reads the users. Where there are none, makes the first with a password of its own, which waits in a file that
    /// only the daemon's user can read until somebody signs in with it. True when it was made now.
    pub fn open(data_dir: &Path) -> anyhow::Result<(Self, bool)> {
        let folder = Self::folder(data_dir);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder).with_context(|| {
            format!("the console's folder {} cannot be made; may this user write to data_dir?", folder.display())
        })?;
        let path = folder.join(USERS);
        let mut users = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is no list of users; put it right, or take it away: the next start makes a new admin",
                    path.display()
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
        };
        users.folder = folder;
        let first = users.users.is_empty();
        if first {
            let password = secret::new_password();
            // Before the hash: a start that dies in between makes another password, and nobody is locked out.
            write_private(&users.first_password_file(), &format!("{password}\n"))?;
            users.put(FIRST_USER, Role::Admin, Some(&password))?;
        }
        Ok((users, first))
    }

    /// Where the first password waits for its reader.
    pub fn first_password_file(&self) -> PathBuf {
        self.folder.join(FIRST_PASSWORD)
    }

    /// The first password, while nobody has signed in with it.
    pub fn first_password(data_dir: &Path) -> Option<String> {
        let text = fs::read_to_string(Self::folder(data_dir).join(FIRST_PASSWORD)).ok()?;
        Some(text.trim().to_owned())
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// A user's hash, for [`secret::fits`].
    pub fn password_hash(&self, name: &str) -> Option<String> {
        self.user(name).map(|user| user.password_hash.clone())
    }

    /// Adds a user, or changes one; without a password theirs stays.
    pub fn put(&mut self, name: &str, role: Role, password: Option<&str>) -> anyhow::Result<()> {
        check_name(name)?;
        if let Some(password) = password {
            check_password(name, password)?;
        }
        if role != Role::Admin && self.is_last_admin(name) {
            bail!("{name} is the last admin: somebody must stay one");
        }
        let hash = password.map(secret::hash).transpose()?;
        let before = self.users.clone();
        match (self.users.iter_mut().find(|user| user.name == name), hash) {
            (Some(user), hash) => {
                user.role = role;
                if let Some(hash) = hash {
                    user.password_hash = hash;
                }
            }
            (None, Some(password_hash)) => {
                self.users.push(User { name: name.to_owned(), role, password_hash, since: Utc::now() });
            }
            (None, None) => bail!("{name} needs a password"),
        }
        self.keep().inspect_err(|_| self.users = before)
    }

    pub fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        if self.user(name).is_none() {
            bail!("there is no user `{name}`");
        }
        if self.is_last_admin(name) {
            bail!("{name} is the last admin: somebody must stay one");
        }
        let before = self.users.clone();
        self.users.retain(|user| user.name != name);
        self.keep().inspect_err(|_| self.users = before)
    }

    fn is_last_admin(&self, name: &str) -> bool {
        let mut admins = self.users.iter().filter(|user| user.role == Role::Admin);
        admins.next().is_some_and(|user| user.name == name) && admins.next().is_none()
    }

    /// Makes a token; the only time that it can be read.
    pub fn add_token(&mut self, name: &str, role: Role) -> anyhow::Result<String> {
        check_name(name)?;
        if self.tokens.iter().any(|token| token.name == name) {
            bail!("there is a token `{name}` already; remove it first");
        }
        let token = format!("bh_{}", secret::new_token());
        self.tokens.push(Token { name: name.to_owned(), role, sha256: hex(&token), since: Utc::now() });
        match self.keep() {
            Ok(()) => Ok(token),
            Err(e) => {
                self.tokens.pop();
                Err(e)
            }
        }
    }

    pub fn remove_token(&mut self, name: &str) -> anyhow::Result<()> {
        let before = self.tokens.clone();
        self.tokens.retain(|token| token.name != name);
        if self.tokens.len() == before.len() {
            bail!("there is no token `{name}`");
        }
        self.keep().inspect_err(|_| self.tokens = before)
    }

    /// The token whose text this is.
    pub fn token(&self, text: &str) -> Option<&Token> {
        let hex = hex(text);
        self.tokens.iter().find(|token| secret::same(&token.sha256, &hex))
    }

    fn keep(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("users as JSON")?;
        write_private(&self.folder.join(USERS), &text)
    }
}

fn hex(token: &str) -> String {
    secret::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        bail!("a name is 1 to 64 letters, digits and . _ - @");
    }
    Ok(())
}

fn check_password(name: &str, password: &str) -> anyhow::Result<()> {
    let least = secret::PASSWORD_CHARACTERS_MIN;
    if password.chars().count() < least {
        bail!("a password has at least {least} characters; several words are easy to remember");
    }
    if password.len() > secret::PASSWORD_BYTES_MAX {
        bail!("a password has at most {} bytes", secret::PASSWORD_BYTES_MAX);
    }
    let plain = password.to_lowercase();
    let name = name.to_lowercase();
    let distinct: std::collections::BTreeSet<char> = plain.chars().collect();
    if distinct.len() < 5 || (name.len() > 3 && plain.contains(&name)) {
        bail!("this password is easy to guess; take several unrelated words");
    }
    Ok(())
}

/// Writes a file that its owner alone can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let write = || {
        // One that a crash left behind may have had other permissions.
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_an_admin_whose_password_no_other_user_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (users, first) = Users::open(folder.path()).unwrap();
        assert!(first);
        let password = Users::first_password(folder.path()).unwrap();
        assert!(secret::fits(&password, users.password_hash(FIRST_USER).as_deref()));
        let console = Users::folder(folder.path());
        assert_eq!(mode(&console), 0o700);
        assert_eq!((mode(&console.join(USERS)), mode(&console.join(FIRST_PASSWORD))), (0o600, 0o600));
        let text = fs::read_to_string(console.join(USERS)).unwrap();
        assert!(!text.contains(&password) && text.contains("$argon2id$"), "{text}");
        let (_, first) = Users::open(folder.path()).unwrap();
        assert!(!first);
    }

    #[test]
    fn an_admin_stays_and_weak_passwords_do_not_come_in() {
        let folder = tempfile::tempdir().unwrap();
        let (mut users, _) = Users::open(folder.path()).unwrap();
        assert!(users.remove(FIRST_USER).is_err());
        assert!(users.put(FIRST_USER, Role::Viewer, None).is_err());
        for weak in ["short", "aaaaaaaaaaaaaaa", "my name is ada.l"] {
            assert!(users.put("ada.l", Role::Viewer, Some(weak)).is_err(), "{weak}");
        }
        for bad in ["", "a b", "../x", &"x".repeat(65)] {
            assert!(users.put(bad, Role::Viewer, Some("several unrelated words")).is_err(), "{bad}");
        }
        users.put("ada.l", Role::Admin, Some("several unrelated words")).unwrap();
        users.remove(FIRST_USER).unwrap();
        let (again, _) = Users::open(folder.path()).unwrap();
        assert_eq!(again.users.len(), 1);
    }

    #[test]
    fn a_token_is_known_by_its_text_alone_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (mut users, _) = Users::open(folder.path()).unwrap();
        let text = users.add_token("ci", Role::Operator).unwrap();
        assert!(users.add_token("ci", Role::Viewer).is_err());
        let (again, _) = Users::open(folder.path()).unwrap();
        assert_eq!(again.token(&text).map(|t| (t.name.as_str(), t.role)), Some(("ci", Role::Operator)));
        assert!(again.token("ci").is_none());
        assert!(!fs::read_to_string(Users::folder(folder.path()).join(USERS)).unwrap().contains(&text));
        users.remove_token("ci").unwrap();
        assert!(users.token(&text).is_none());
    }
}
