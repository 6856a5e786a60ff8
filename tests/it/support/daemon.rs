//! A daemon of a test's own: the real program with its configuration, its lakehouse and its log in a folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use boathouse::servers::ports;
use serde_json::Value;

/// How long the daemon may take to do what it does in seconds, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Where a daemon lives, and what it is told. It may be started, killed and started again on it.
pub struct Site {
    pub folder: PathBuf,
    pub topic: String,
    pub metrics_port: u16,
    pub console_port: u16,
    brokers: String,
    clickhouse: String,
    /// Further environment, such as `BOATHOUSE_FAIL_POINT`.
    pub environment: Vec<(String, String)>,
    /// Warnings and errors that the test expects in the log.
    listed: Mutex<Vec<String>>,
    _owned: Option<tempfile::TempDir>,
}

impl Drop for Site {
    /// A test that has said nothing of its log expects neither warnings nor errors there.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_log_is_clean_but_for(&[]);
        }
    }
}

impl Site {
    /// A site with the seed's pipeline on a topic of its own. Bronze commits every second, so that tests see commits;
    /// no slot starts a batch in the middle of a test about something else.
    pub fn new(brokers: &str, clickhouse: &str, topic: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("boathouse-").tempdir().expect("a temporary folder");
        Self::within(folder, brokers, clickhouse, topic)
    }

    /// As [`Self::new`], in this folder.
    pub fn within(owned: tempfile::TempDir, brokers: &str, clickhouse: &str, topic: &str) -> Self {
        let folder = owned.path().to_owned();
        let pipeline = folder.join("config/pipelines/user_events");
        fs::create_dir_all(&pipeline).expect("a folder for the pipeline");
        let shipped = include_str!("../../../config/pipelines/user_events/pipeline.toml");
        let text = shipped.replace("topic = \"user-events\"", &format!("topic = \"{topic}\""));
        assert_ne!(text, shipped, "the shipped pipeline names its topic on a line of its own");
        fs::write(
            pipeline.join("pipeline.toml"),
            text + "\n[bronze]\nflush_interval = \"1s\"\n[schedule]\nenabled = false\n",
        )
        .expect("pipeline.toml");
        fs::write(folder.join("config/boathouse.toml"), "[upkeep]\nenabled = false\n").expect("boathouse.toml");
        Self {
            folder,
            topic: topic.into(),
            metrics_port: ports::free(),
            console_port: ports::free(),
            brokers: brokers.into(),
            clickhouse: clickhouse.into(),
            environment: Vec::new(),
            listed: Mutex::default(),
            _owned: Some(owned),
        }
    }

    /// A second instance's site: the same lakehouse, pipeline and group, another data folder.
    pub fn sibling(&self) -> Self {
        let owned = tempfile::Builder::new().prefix("boathouse-").tempdir().expect("a temporary folder");
        let folder = owned.path().to_owned();
        let mut environment = self.environment.clone();
        environment.push(("BOATHOUSE__LAKEHOUSE__URI".into(), self.lakehouse().display().to_string()));
        environment
            .push(("BOATHOUSE__PIPELINES__DIR".into(), self.folder.join("config/pipelines").display().to_string()));
        fs::create_dir_all(folder.join("config")).expect("a folder");
        fs::write(folder.join("config/boathouse.toml"), "[upkeep]\nenabled = false\n").expect("boathouse.toml");
        Self {
            folder,
            topic: self.topic.clone(),
            metrics_port: ports::free(),
            console_port: ports::free(),
            brokers: self.brokers.clone(),
            clickhouse: self.clickhouse.clone(),
            environment,
            listed: Mutex::default(),
            _owned: Some(owned),
        }
    }

    /// Gives the pipeline the gold models that the product ships.
    pub fn add_shipped_models(&self) {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/pipelines/user_events/gold");
        let models = self.pipeline_file().with_file_name("gold");
        fs::create_dir_all(&models).expect("a folder for the models");
        for model in fs::read_dir(shipped).expect("the shipped models").flatten() {
            fs::copy(model.path(), models.join(model.file_name())).expect("a copy of the model");
        }
    }

    pub fn lakehouse(&self) -> PathBuf {
        self.folder.join("lakehouse")
    }

    pub fn pipeline_file(&self) -> PathBuf {
        self.folder.join("config/pipelines/user_events/pipeline.toml")
    }

    /// The program with this site's configuration and the given arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
        command
            .args(["--config"])
            .arg(self.folder.join("config/boathouse.toml"))
            .args(arguments)
            .env("BOATHOUSE__DATA_DIR", self.folder.join("data"))
            .env("BOATHOUSE__KAFKA__BROKERS", &self.brokers)
            .env("BOATHOUSE__KAFKA__GROUP", format!("group-{}", self.topic))
            .env("BOATHOUSE__LAKEHOUSE__URI", self.lakehouse())
            .env("BOATHOUSE__CLICKHOUSE__URL", &self.clickhouse)
            .env("BOATHOUSE__METRICS__LISTEN", format!("127.0.0.1:{}", self.metrics_port))
            .env("BOATHOUSE__CONSOLE__LISTEN", format!("127.0.0.1:{}", self.console_port))
            .env("BOATHOUSE__LOG__FILTER", "info,boathouse=debug,buoyant_kernel=off")
            .envs(self.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        command
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// A command's exit code, and its standard output as JSON.
    pub fn json(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
        let output = self.run(&[&["--json"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("{arguments:?}: no JSON ({e}): {text}\n{}\n{}", String::from_utf8_lossy(&output.stderr), self.log())
        });
        (output.status.code(), value)
    }

    /// Starts the daemon; its log is added to the site's.
    pub fn start(&self) -> Daemon {
        self.start_at(Stdio::null(), Stdio::null())
    }

    /// As [`Self::start`], with an input and an output of its own.
    pub fn start_at(&self, input: Stdio, output: Stdio) -> Daemon {
        let log = self.log_path();
        let stderr = File::options().create(true).append(true).open(&log).expect("a log file");
        let child =
            self.command(&["run"]).stdin(input).stdout(output).stderr(stderr).spawn().expect("the daemon starts");
        Daemon { child, metrics_port: self.metrics_port, log }
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Fails on any warning or error in the log that contains none of the texts listed, now or before.
    pub fn assert_log_is_clean_but_for(&self, listed: &[&str]) {
        let log = self.log();
        let mut all = self.listed.lock().expect("no test panics here");
        all.extend(listed.iter().map(|text| (*text).to_owned()));
        let bad: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains("ERROR ") || line.contains("panicked"))
            .filter(|line| !all.iter().any(|text| line.contains(text.as_str())))
            .collect();
        drop(all);
        assert!(bad.is_empty(), "unlisted warnings or errors:\n{}", bad.join("\n"));
    }

    /// `boathouse reconcile --json`: whether it is right, and its report.
    pub fn reconcile(&self) -> (bool, Value) {
        let output = self.run(&["--json", "reconcile"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("no report ({e}): {text}\n{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code() == Some(0), report)
    }

    /// Asserts that nothing is lost, duplicated or different; the report.
    pub fn assert_reconciled(&self) -> Value {
        let (right, report) = self.reconcile();
        assert!(right, "reconcile found differences: {report:#}\nlog: {}", tail(&self.log_path(), 40));
        report
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    metrics_port: u16,
    log: PathBuf,
}

impl Daemon {
    /// The daemon's state by HTTP; none while it does not answer.
    pub async fn status(&self) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/status", self.metrics_port);
        reqwest::get(url).await.ok()?.json().await.ok()
    }

    /// Waits until every partition has been read to `ends` (by partition) and both sinks hold it.
    pub async fn wait_until_served(&mut self, ends: &std::collections::BTreeMap<i32, i64>) {
        self.wait("both sinks to hold everything", |status| {
            let Some(partitions) = status["partitions"].as_array() else { return false };
            ends.iter().all(|(partition, end)| {
                partitions.iter().any(|p| {
                    p["partition"] == *partition
                        && p["bronze_position"].as_i64() >= Some(*end)
                        && p["realtime_position"].as_i64() >= Some(*end)
                })
            })
        })
        .await;
    }

    /// Waits until the daemon's state satisfies `ready`.
    pub async fn wait(&mut self, what: &str, ready: impl Fn(&Value) -> bool) {
        self.wait_for(PATIENCE, what, ready).await;
    }

    /// As [`Self::wait`], with another limit.
    pub async fn wait_for(&mut self, limit: Duration, what: &str, ready: impl Fn(&Value) -> bool) {
        let start = Instant::now();
        let mut last = Value::Null;
        loop {
            if let Some(status) = self.status().await {
                if ready(&status) {
                    return;
                }
                last = status;
            }
            if let Some(status) = self.exited() {
                panic!("the daemon ended ({status}) while waiting for {what}; log: {}", tail(&self.log, 40));
            }
            assert!(start.elapsed() < limit, "waited {limit:?} for {what}: {last:#}\nlog: {}", tail(&self.log, 40));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the daemon is our child")
    }

    /// Waits for it to end by itself.
    pub async fn wait_exit(&mut self, what: &str, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(start.elapsed() < limit, "the daemon has not ended ({what}); log: {}", tail(&self.log, 40));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers; the child is ours and not yet reaped.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.wait_exit("SIGTERM", PATIENCE).await;
        assert!(status.success(), "SIGTERM ended it with {status}; log: {}", tail(&self.log, 40));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log, without the debugging ones: those of a minute's commits would push out what happened.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().filter(|line| !line.contains(" DEBUG ")).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs the producer to its end; its summary.
pub fn produce(brokers: &str, topic: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_boathouse-producer"))
        .args(["--brokers", brokers, "--topic", topic, "--json"])
        .args(arguments)
        .output()
        .expect("the producer runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("no summary ({e}): {text}"))
}
