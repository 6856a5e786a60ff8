//! Chromium from Debian's package, for pages that want to be seen.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Fetched once; the program, and the folders of the libraries that it brings along, as in `LD_LIBRARY_PATH`.
pub fn chromium() -> (PathBuf, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/chromium.sh");
    let made = Command::new(script).output().expect("tools/chromium.sh runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let root = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
    let own = root.join("usr/lib/chromium");
    let mut folders = vec![own.display().to_string()];
    // As x86_64-linux-gnu, and what is below it.
    for entry in std::fs::read_dir(root.join("usr/lib")).expect("libraries").flatten() {
        if entry.file_name().to_string_lossy().ends_with("-linux-gnu") {
            folders.push(entry.path().display().to_string());
            folders.extend(subfolder(&entry.path(), "pulseaudio"));
        }
    }
    (own.join("chromium"), folders.join(":"))
}

fn subfolder(folder: &Path, name: &str) -> Option<String> {
    let below = folder.join(name);
    below.is_dir().then(|| below.display().to_string())
}
