//! Making local files survive a power cut. Object stores acknowledge what is durable already; a file system does not.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use url::Url;

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
