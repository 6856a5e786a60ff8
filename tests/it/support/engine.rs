//! A ClickHouse engine of a test's own: the real program on a free port and a temporary folder.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the engine may take to start or stop.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A running engine; stopped by its process id when dropped.
pub struct Engine {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// Its data folder.
    pub path: PathBuf,
    arguments: Vec<String>,
    child: Child,
    log: Arc<Mutex<String>>,
    _folder: Option<tempfile::TempDir>,
}

impl Engine {
    /// Starts an engine with default settings on a temporary folder.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts an engine with further arguments, such as `["--users", file]`.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_within(tempfile::tempdir().expect("a temporary folder"), arguments)
    }

    /// Starts an engine with further arguments below a folder that goes with it.
    pub fn start_within(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let path = folder.path().join("clickhouse");
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let (child, address, log) = spawn(&path, "127.0.0.1:0", &arguments);
        Self { url: format!("http://{address}"), path, arguments, child, log, _folder: Some(folder) }
    }

    /// Starts an engine on a folder that is the caller's to clean up.
    pub fn start_on(path: &Path) -> Self {
        let (child, address, log) = spawn(path, "127.0.0.1:0", &[]);
        Self {
            url: format!("http://{address}"),
            path: path.to_owned(),
            arguments: Vec::new(),
            child,
            log,
            _folder: None,
        }
    }

    /// Runs a statement as `default` and gives its result as tab-separated text; panics on an error.
    pub fn sql(&self, statement: &str) -> String {
        let (status, text) = self.try_sql(statement);
        assert_eq!(status, 200, "{statement}: {text}");
        text
    }

    /// Runs a statement as `default`; HTTP status and body.
    pub fn try_sql(&self, statement: &str) -> (u16, String) {
        let url = format!("{}/", self.url);
        let statement = statement.to_owned();
        // A thread of its own: callers may stand in an async test, where a blocking runtime cannot be entered.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let answer = reqwest::Client::new().post(url).body(statement).send().await.expect("an answer");
                (answer.status().as_u16(), answer.text().await.expect("a body"))
            })
        })
        .join()
        .expect("the request's thread")
    }

    /// What the engine has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Address, as `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// SIGKILL; the folder stays.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; waits for the end and gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the engine did not stop within {PATIENCE:?}; its log:\n{}", self.log());
    }

    /// Starts the engine again, after [`Engine::kill`] or [`Engine::stop`], on the same folder and port.
    pub fn restart(&mut self) {
        self.kill();
        let address = self.address().to_owned();
        let (child, _, log) = spawn(&self.path, &address, &self.arguments);
        self.child = child;
        self.log = log;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal, such as `TERM`, to a process that this test started.
pub fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "signal {signal} to {pid}");
}

/// The program with a library that is fetched when missing.
pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_boathouse-clickhouse"))
}

/// Runs the program to its end, for what it refuses.
pub fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("the program runs")
}

/// Fetches the engine's library once for the whole test binary.
pub fn fetch_library() {
    static FETCHED: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    FETCHED.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/chdb.sh");
        let fetched = Command::new(script).output().expect("tools/chdb.sh runs");
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    });
}

fn spawn(path: &Path, listen: &str, arguments: &[String]) -> (Child, SocketAddr, Arc<Mutex<String>>) {
    fetch_library();
    let mut child = command()
        .arg("--path")
        .arg(path)
        .args(["--listen", listen])
        .args(arguments)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("boathouse-clickhouse starts");
    let log = Arc::new(Mutex::new(String::new()));
    let (ready, address) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stderr.take().expect("its log"));
    let kept = log.clone();
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if let Some(at) = line.split("listening on http://").nth(1) {
                let _ = ready.send(at.split(' ').next().unwrap_or_default().to_owned());
            }
            let mut kept = kept.lock().expect("the log");
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    match address.recv_timeout(PATIENCE) {
        Ok(address) => (child, address.parse().expect("an address"), log),
        Err(_) => {
            let _ = child.kill();
            panic!("the engine did not start; its log:\n{}", log.lock().expect("the log"));
        }
    }
}
