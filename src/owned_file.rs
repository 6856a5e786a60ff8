//! Small files that a daemon and the commands beside it both change: written whole or not at all, readable by their owner
//! alone, one writer at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Which file it is that stands at a path: each write makes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified_ns: i128,
    length: u64,
}

impl Stamp {
    /// None where there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let modified_ns = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        Some(Self { inode: found.ino(), modified_ns, length: found.len() })
    }
}

/// Writes a file that its owner alone can read, whole or not at all.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // One that a crash left behind may have had other permissions.
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    like_its_folder(&fresh)?;
    fs::rename(&fresh, path)
}

/// Keeps every other process that asks for the same lock waiting until it is dropped.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    like_its_folder(path)?;
    file.lock()?;
    Ok(file)
}

/// Gives a file that root has made to the owner of its folder: the daemon must be able to read it.
pub fn like_its_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let (own, folder) = (fs::metadata(path)?, fs::metadata(folder)?);
    if own.uid() == folder.uid() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(folder.uid()), Some(folder.gid()))
}
