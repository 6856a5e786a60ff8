//! Who did what: a line of JSON for each action and each sign-in, in a file that its owner alone can read.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::owned_file::like_its_folder;

const FILE: &str = "audit.jsonl";
/// A file of this size is set aside; the one that was set aside before goes.
const BYTES_MAX: u64 = 16 << 20;

/// One action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Entry {
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    /// The user, `token:NAME`, or the name that somebody tried.
    pub who: String,
    /// The address that the request came from.
    pub from: String,
    /// Such as `POST /batch/run`.
    pub action: String,
    /// What was sent, without passwords and tokens.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The answer's HTTP status.
    pub status: u16,
}

/// The log. Clones share one file.
#[derive(Clone)]
pub struct Audit {
    path: PathBuf,
    file: Arc<Mutex<Option<File>>>,
}

impl Audit {
    pub fn open(folder: &Path) -> Self {
        Self { path: folder.join(FILE), file: Arc::default() }
    }

    /// Adds an entry. That it cannot be written is an error in the log, and does not undo what was done.
    pub fn add(&self, entry: &Entry) {
        if let Err(error) = self.write(entry) {
            tracing::error!(file = %self.path.display(), %error, who = entry.who, action = entry.action, "the audit log cannot be written");
        }
    }

    fn write(&self, entry: &Entry) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(entry)?;
        line.push('\n');
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*slot
            && file.metadata()?.len() > BYTES_MAX
        {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            *slot = None;
        }
        let file = match &mut *slot {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
                like_its_folder(&self.path)?;
                slot.insert(file)
            }
        };
        Ok(file.write_all(line.as_bytes())?)
    }

    /// The newest entries, newest first. Reads the file: not on a thread that must not wait.
    pub fn newest(&self, limit: usize) -> anyhow::Result<Vec<Entry>> {
        let mut entries = std::collections::VecDeque::new();
        for path in [self.path.with_extension("jsonl.1"), self.path.clone()] {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
            };
            for line in BufReader::new(file).lines() {
                // A line that a crash cut short is no entry.
                let Ok(entry) = serde_json::from_str(&line?) else { continue };
                if entries.len() == limit {
                    entries.pop_front();
                }
                entries.push_back(entry);
            }
        }
        Ok(entries.into_iter().rev().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_newest_come_first_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path());
        let entry = |n: u16| Entry {
            at: DateTime::from_timestamp(n.into(), 0).unwrap(),
            who: "admin".into(),
            from: "127.0.0.1".into(),
            action: "POST /batch/run".into(),
            detail: String::new(),
            status: n,
        };
        audit.add(&entry(1));
        fs::OpenOptions::new().append(true).open(&audit.path).unwrap().write_all(b"{\"at\":\n").unwrap();
        audit.add(&entry(2));
        audit.add(&entry(3));
        assert_eq!(audit.newest(2).unwrap(), [entry(3), entry(2)]);
        assert_eq!(audit.newest(9).unwrap().len(), 3);
        assert_eq!(fs::metadata(&audit.path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
