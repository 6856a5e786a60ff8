//! Making local files survive a power cut. Object stores acknowledge what is durable already; a file system does not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use url::Url;
use uuid::Uuid;

/// The local folder of a `file:` URL; none for object stores.
pub fn local_path(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

/// Flushes files and folders (for the names in them) to the disk, off the runtime's threads, in the order given.
pub async fn fsync(paths: Vec<PathBuf>) -> io::Result<()> {
    tokio::task::spawn_blocking(move || paths.iter().try_for_each(|p| fsync_one(p))).await.map_err(io::Error::other)?
}

fn fsync_one(path: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    File::open(path).and_then(|f| f.sync_all()).map_err(named)
}

/// Whether the folder of a table has a log: a table that has none is not to be opened, which the kernel would call an
/// error. What cannot be looked at is for whoever opens it to tell.
pub fn has_log(root: &Path) -> bool {
    let files = match fs::read_dir(root.join("_delta_log")) {
        Ok(files) => files,
        Err(e) => return e.kind() != io::ErrorKind::NotFound,
    };
    // Entries and checkpoints are named by their versions; the hint to a checkpoint says that there was one.
    let of_log = |name: &[u8]| name.first().is_some_and(u8::is_ascii_digit) || name == b"_last_checkpoint";
    files.into_iter().any(|file| file.map_or(true, |file| of_log(file.file_name().as_encoded_bytes())))
}

/// Makes a file of this content if there is none of its name; false where there is one. It is durable before anybody
/// sees it.
pub async fn put_new(path: PathBuf, content: Bytes) -> io::Result<bool> {
    let put = move || {
        let folder = path.parent().unwrap_or(Path::new("."));
        // No reader of a log takes such a name for an entry.
        let aside = folder.join(format!("_commit_{}.json.tmp", Uuid::new_v4()));
        let mut file = File::options().write(true).create_new(true).open(&aside)?;
        let linked =
            file.write_all(&content).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&aside, &path));
        let gone = fs::remove_file(&aside);
        match linked {
            Ok(()) => gone.and_then(|()| fsync_one(folder)).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        }
    };
    tokio::task::spawn_blocking(put).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_put_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000000000000000001.json");
        assert!(put_new(path.clone(), Bytes::from_static(b"one")).await.unwrap());
        assert!(!put_new(path.clone(), Bytes::from_static(b"two")).await.unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    }

    #[test]
    fn a_log_has_a_version() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("_delta_log");
        assert!(!has_log(folder.path()));
        fs::create_dir(&log).unwrap();
        fs::write(log.join("_commit_aside.json.tmp"), "").unwrap();
        assert!(!has_log(folder.path()));
        fs::write(log.join("00000000000000000000.json"), "").unwrap();
        assert!(has_log(folder.path()));
    }
}
