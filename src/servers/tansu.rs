//! tansu: a Kafka-compatible broker in Rust, for machines without Java. It keeps its records in SQLite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ServerError;

/// The version that tools/tansu.sh builds: the release, and the start of the SHA-256 of tools/tansu.patch.
const VERSION: &str = include_str!("../../tools/tansu.version");

/// Its database, in the broker's folder.
const FILE: &str = "tansu.db";

/// Finds the program, or says what is missing.
pub(super) fn find() -> Result<PathBuf, ServerError> {
    let program = super::broker::cache()?.join("tansu").join(VERSION.trim()).join("bin/tansu");
    if program.is_file() {
        return Ok(program);
    }
    Err(ServerError::Missing {
        what: format!("tansu ({})", program.display()),
        hint: "run `BOATHOUSE_BROKER=tansu make tools` (it builds for about nine minutes)".into(),
    })
}

/// Whether `folder` holds the data of a tansu broker.
pub(super) fn has_data(folder: &Path) -> bool {
    database(folder).is_file()
}

/// The command that runs the broker on `port`.
pub(super) fn prepare(program: &Path, folder: &Path, port: u16) -> Result<Command, ServerError> {
    fs::create_dir_all(folder).map_err(ServerError::io(format!("create {}", folder.display())))?;
    let folder = fs::canonicalize(folder).map_err(ServerError::io(format!("resolve {}", folder.display())))?;
    // tansu takes the path for one below its working folder, also where it is absolute.
    let storage = format!("sqlite:///{FILE}");
    let listener = format!("tcp://127.0.0.1:{port}");
    let mut command = Command::new(program);
    command
        .arg("broker")
        .args(["--listener-url", &listener])
        .args(["--advertised-listener-url", &listener])
        .args(["--storage-engine", &storage])
        .current_dir(&folder);
    Ok(command)
}

fn database(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::VERSION;

    /// Else a cache would keep a program that was built with another patch.
    #[test]
    fn the_version_names_the_patch() {
        let patch = Sha256::digest(include_bytes!("../../tools/tansu.patch"));
        let start: String = patch.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let (_, named) = VERSION.trim().split_once('+').unwrap();
        assert_eq!(named, start, "write it into tools/tansu.version after the +");
    }
}
