//! Scripts of `tests/python`, run in the environments that `tools/python.sh` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a script with paths as its arguments; returns what it prints. Fails when the script does.
pub fn python(script: &str, arguments: &[&Path]) -> String {
    run(&[], script, arguments)
}

/// As [`python`], in the environment of `tools/python-<group>-requirements.txt`.
pub fn python_of(group: &str, script: &str, arguments: &[&Path]) -> String {
    run(&[group], script, arguments)
}

/// The python of an environment, made where it is missing.
pub fn environment(group: &[&str]) -> PathBuf {
    let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/python.sh")).args(group).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "tools/python.sh: {said}");
    String::from_utf8(made.stdout).unwrap().trim().into()
}

fn run(group: &[&str], script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(environment(group))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
