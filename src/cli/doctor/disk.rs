//! Room and rights where the daemon writes.

use std::path::Path;

use super::Finding;
use crate::config::Config;
use crate::storage::Place;
use crate::telemetry::{Space, space};

/// Part of a disk that should be free, and bytes without which a commit may fail any minute.
const FREE_PART: f64 = 0.1;
const FREE_BYTES: u64 = 1 << 30;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut places = vec![("data_dir", config.server.data_dir.clone())];
    if let Ok(Place::Folder(path)) = Place::of(&config.server.lakehouse.uri) {
        places.push(("lakehouse.uri", path));
    }
    places.iter().flat_map(|(key, path)| [rights(key, path), room(key, path, space(path))]).collect()
}

/// Tries to write where the daemon must.
fn rights(key: &str, path: &Path) -> Finding {
    let check = format!("{key} rights");
    let Some(there) = path.ancestors().find(|p| p.exists() && !p.as_os_str().is_empty()) else {
        return Finding::ok(check, format!("{} is made at the start", path.display()));
    };
    let probe = there.join(format!(".boathouse-doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) if there == path => Finding::ok(check, format!("{} may be written", path.display())),
        Ok(()) => Finding::ok(check, format!("{} will be made in {}", path.display(), there.display())),
        Err(error) => Finding::fail(
            check,
            format!("{} cannot be written: {error}", there.display()),
            format!("give the daemon's user rights on it, or set `{key}` to another folder"),
        ),
    }
}

fn room(key: &str, path: &Path, space: Option<Space>) -> Finding {
    let check = format!("{key} room");
    let Some(Space { free_bytes, size_bytes }) = space else {
        return Finding::warn(check, format!("the system does not say how full {} is", path.display()), "look with df");
    };
    let part = free_bytes as f64 / size_bytes.max(1) as f64;
    let found = format!("{:.1} GiB free, {:.0} %", free_bytes as f64 / f64::from(1 << 30), part * 100.0);
    let advice = "boathouse tables shows what is large; boathouse tables vacuum takes away what nobody needs";
    match (free_bytes < FREE_BYTES, part < FREE_PART) {
        (true, _) => Finding::fail(check, found, advice),
        (false, true) => Finding::warn(check, found, advice),
        (false, false) => Finding::ok(check, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_disk_is_judged_by_part_and_by_bytes() {
        let state =
            |free_bytes, size_bytes| room("data_dir", Path::new("/d"), Some(Space { free_bytes, size_bytes })).state;
        assert_eq!(state(500 << 30, 1000 << 30), State::Ok);
        assert_eq!(state(50 << 30, 1000 << 30), State::Warn);
        assert_eq!(state(1 << 29, 1 << 30), State::Fail);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_tried_in_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let later = rights("data_dir", &folder.path().join("a/b"));
        assert_eq!(later.state, State::Ok, "{later:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays behind");
    }
}
