//! A store that speaks S3, in a process of a test's own: `tests/python/s3_server.py`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::daemon::Site;
use super::python::environment;

pub const SECRET: &str = "s3cret/key+with=signs";

/// A running store with an empty bucket `lake`; it ends when dropped.
pub struct S3 {
    pub url: String,
    child: Child,
}

impl S3 {
    /// Starts one. Blocks.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that takes conditional writes for plain ones.
    pub fn that_ignores_conditions() -> Self {
        Self::with(&["ignore-conditions"])
    }

    fn with(arguments: &[&str]) -> Self {
        let mut child = Command::new(environment(&["s3"]))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/s3_server.py"))
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut url = String::new();
        let output = child.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut url).expect("the store's address");
        assert!(url.starts_with("http://"), "the store did not start: {url:?}");
        Self { url: url.trim().into(), child }
    }

    /// Puts a site's lakehouse into the bucket.
    pub fn keep(&self, site: &mut Site) {
        let option = |name: &str, value: &str| (format!("BOATHOUSE__LAKEHOUSE__OPTIONS__{name}"), value.to_string());
        site.environment.extend([
            ("BOATHOUSE__LAKEHOUSE__URI".into(), "s3://lake/of/boathouse".into()),
            option("AWS_ENDPOINT", &self.url),
            option("AWS_ALLOW_HTTP", "true"),
            option("AWS_REGION", "eu-central-1"),
            option("AWS_ACCESS_KEY_ID", "key"),
            option("AWS_SECRET_ACCESS_KEY", SECRET),
        ]);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
