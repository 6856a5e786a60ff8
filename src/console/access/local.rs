//! The token of the commands on this machine: every start of the daemon makes another one, in a file that its user alone
//! can read, and takes it away at its end. Whoever can read it may write to the data folder anyway, so that it opens
//! nothing that was closed; it is an operator's, and counts from this machine alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::secret;
use super::users::Users;
use crate::owned_file;

const FILE: &str = "local-token";

/// The token in force, by its digest.
#[derive(Debug)]
pub struct Local {
    digest: [u8; 32],
    file: PathBuf,
}

impl Local {
    /// Makes one, in place of what an earlier life of the daemon may have left.
    pub fn make(data_dir: &Path) -> anyhow::Result<Self> {
        let file = Self::file(data_dir);
        let token = format!("bh_local_{}", secret::new_token());
        owned_file::write(&file, &token).with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(Self { digest: secret::digest(&token), file })
    }

    /// Where the commands find it.
    pub fn file(data_dir: &Path) -> PathBuf {
        Users::folder(data_dir).join(FILE)
    }

    /// The token of the daemon that runs on a data folder; none where none runs, or this user may not read it.
    pub fn read(data_dir: &Path) -> Option<String> {
        Some(fs::read_to_string(Self::file(data_dir)).ok()?.trim().to_owned())
    }

    /// Whether a text is the token.
    pub fn is(&self, text: &str) -> bool {
        secret::digest(text).iter().zip(self.digest).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }

    /// Takes the file away: nobody takes it for the next daemon's.
    pub fn forget(&self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::debug!(file = %self.file.display(), %error, "the commands' token could not be taken away");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_start_has_another_token_that_no_other_user_reads() {
        let folder = tempfile::tempdir().unwrap();
        Users::open(folder.path()).unwrap();
        let first = Local::make(folder.path()).unwrap();
        let token = Local::read(folder.path()).unwrap();
        let mode = fs::metadata(Local::file(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.is(&token) && !first.is("") && !first.is("bh_local_guess"));
        let second = Local::make(folder.path()).unwrap();
        assert!(!second.is(&token), "an earlier life's token is none");
        second.forget();
        assert!(Local::read(folder.path()).is_none());
    }
}
