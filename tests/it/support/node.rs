//! Scripts of `tests/node`, run with the packages that `tools/node.sh` installs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Runs a script with the packages' folder and further arguments; returns what it prints. Fails when the script does.
pub fn node(script: &str, arguments: &[impl AsRef<OsStr>]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg(root.join("tests/node").join(script))
        .arg(modules())
        .args(arguments)
        .output()
        .expect("node runs: install Node.js 20 or newer");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The folder that has `node_modules` in it, made once for the whole test binary.
pub fn modules() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/node.sh");
        let made = Command::new(script).output().expect("tools/node.sh runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8_lossy(&made.stdout).trim().into()
    })
    .clone()
}
