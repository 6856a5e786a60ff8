//! Users and API tokens, in a file that its owner alone can read. Passwords are kept as argon2id hashes, tokens as
//! digests.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::role::Role;
use super::secret;
use crate::owned_file::{self, Stamp};

/// The user that the first start makes.
pub const FIRST_USER: &str = "admin";
const USERS: &str = "users.json";
const FIRST_PASSWORD: &str = "first-password";
const LOCK: &str = "users.lock";

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
    /// The file that this was read from or written to.
    #[serde(skip)]
    stamp: Option<Stamp>,
}

impl Users {
    /// The folder of the console's own files in the daemon's.
    pub fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join("console")
    }

    /// Reads the users. Where there are none, makes the first with a password of its own, which waits in a file that
    /// only the daemon's user can read until somebody signs in with it; that password, when it was made now.
    pub fn open(data_dir: &Path) -> anyhow::Result<(Self, Option<String>)> {
        let folder = Self::folder(data_dir);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder).with_context(|| {
            format!("the console's folder {} cannot be made; may this user write to data_dir?", folder.display())
        })?;
        let mut users = Self::read(folder)?;
        let mut first = None;
        if users.users.is_empty() {
            let password = secret::new_password();
            // Before the hash: a start that dies in between makes another password, and nobody is locked out.
            write_private(&users.first_password_file(), &format!("{password}\n"))?;
            users.put(FIRST_USER, Role::Admin, Some(&password))?;
            first = Some(password);
        }
        Ok((users, first))
    }

    /// The users that a folder keeps; none where there is no list yet.
    fn read(folder: PathBuf) -> anyhow::Result<Self> {
        let path = folder.join(USERS);
        // Before the text: what is written in between is then read again.
        let stamp = Stamp::of(&path);
        let mut users: Self = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is no list of users; put it right, or take it away: the next start makes a new admin",
                    path.display()
                )
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
        };
        (users.folder, users.stamp) = (folder, stamp);
        Ok(users)
    }

    /// Changes the users of a data folder from outside the daemon, which may run meanwhile.
    pub fn edit<T>(data_dir: &Path, change: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let folder = Self::folder(data_dir);
        if !folder.join(USERS).is_file() {
            bail!(
                "there is no list of users in {}: the daemon's first start makes it; is data_dir the daemon's?",
                folder.display()
            );
        }
        let _alone = Self { folder: folder.clone(), ..Self::default() }.alone()?;
        change(&mut Self::read(folder)?)
    }

    /// Keeps every other process from changing the users until it is dropped.
    pub fn alone(&self) -> anyhow::Result<fs::File> {
        let path = self.folder.join(LOCK);
        owned_file::lock(&path).with_context(|| format!("{} cannot be locked", path.display()))
    }

    /// Whether another process has changed the users since they were read.
    pub fn is_stale(&self) -> bool {
        Stamp::of(&self.folder.join(USERS)) != self.stamp
    }

    /// Reads them again; the names of those whose password is another one now, or who are gone. What cannot be read
    /// leaves them as they were, and is tried again when the file changes again.
    pub fn read_again(&mut self) -> anyhow::Result<Vec<String>> {
        let stamp = Stamp::of(&self.folder.join(USERS));
        let now = Self::read(self.folder.clone()).inspect_err(|_| self.stamp = stamp)?;
        let differs = |user: &&User| now.password_hash(&user.name).as_ref() != Some(&user.password_hash);
        let changed = self.users.iter().filter(differs).map(|user| user.name.clone()).collect();
        *self = now;
        Ok(changed)
    }

    /// Whether a password can be set: of a user who is there, or who is made with a role. The role that they have then.
    pub fn may_set_password(&self, name: &str, role: Option<Role>) -> anyhow::Result<Role> {
        check_name(name)?;
        if let Some(role) = role.or_else(|| self.user(name).map(|user| user.role)) {
            return Ok(role);
        }
        let names: Vec<&str> = self.users.iter().map(|user| user.name.as_str()).collect();
        bail!("there is no user `{name}`; there is {}. With --role they are made", names.join(", "));
    }

    /// Sets a password, of a new user with a role; the first password is none any more once its user has another.
    pub fn set_password(&mut self, name: &str, role: Option<Role>, password: &str) -> anyhow::Result<()> {
        let role = self.may_set_password(name, role)?;
        self.put(name, role, Some(password))?;
        if name == FIRST_USER {
            // Gone already where somebody has signed in with it.
            let _ = fs::remove_file(self.first_password_file());
        }
        Ok(())
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

    fn keep(&mut self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("users as JSON")?;
        let path = self.folder.join(USERS);
        write_private(&path, &text)?;
        self.stamp = Stamp::of(&path);
        Ok(())
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

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    owned_file::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
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
        let password = Users::first_password(folder.path()).unwrap();
        assert_eq!(first.as_deref(), Some(password.as_str()));
        assert!(secret::fits(&password, users.password_hash(FIRST_USER).as_deref()));
        let console = Users::folder(folder.path());
        assert_eq!(mode(&console), 0o700);
        assert_eq!((mode(&console.join(USERS)), mode(&console.join(FIRST_PASSWORD))), (0o600, 0o600));
        let text = fs::read_to_string(console.join(USERS)).unwrap();
        assert!(!text.contains(&password) && text.contains("$argon2id$"), "{text}");
        let (_, first) = Users::open(folder.path()).unwrap();
        assert_eq!(first, None);
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
    fn what_another_process_changes_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Users::edit(folder.path(), |_| Ok(())).unwrap_err().to_string().contains("no list of users"));
        let (mut users, _) = Users::open(folder.path()).unwrap();
        users.put("ada", Role::Viewer, Some("several unrelated words")).unwrap();
        assert!(!users.is_stale());
        let set = |name: &str, role| {
            Users::edit(folder.path(), |users| users.set_password(name, role, "some other unrelated words"))
        };
        set("ada", None).unwrap();
        assert!(set("eve", None).unwrap_err().to_string().contains("no user `eve`; there is admin, ada"));
        set("eve", Some(Role::Operator)).unwrap();
        assert!(users.is_stale());
        assert_eq!(users.read_again().unwrap(), ["ada"]);
        assert!(!users.is_stale());
        assert!(secret::fits("some other unrelated words", users.password_hash("ada").as_deref()));
        assert_eq!((users.user("ada").unwrap().role, users.user("eve").unwrap().role), (Role::Viewer, Role::Operator));
        set(FIRST_USER, None).unwrap();
        assert!(Users::first_password(folder.path()).is_none());
        // What somebody has broken by hand leaves things as they were, and is not read again and again.
        fs::write(Users::folder(folder.path()).join(USERS), "oops").unwrap();
        assert!(users.is_stale() && users.read_again().is_err() && !users.is_stale());
        assert_eq!(users.users.len(), 3);
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
