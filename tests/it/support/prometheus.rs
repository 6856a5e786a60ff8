//! A Prometheus of a test's own, from Debian's package, with the shipped configuration and rules.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running server; killed by its process id when dropped.
pub struct Prometheus {
    url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` and evaluates the shipped rules, both once a second. Blocks.
    pub fn start(target: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shipped = grafana("prometheus.yml");
        let mut text = std::fs::read_to_string(&shipped).expect("prometheus.yml");
        for (from, to) in [
            ("127.0.0.1:9464", target),
            ("scrape_interval: 5s", "scrape_interval: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ] {
            assert!(text.contains(from), "prometheus.yml has no `{from}`");
            text = text.replace(from, to);
        }
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, text).expect("prometheus.yml");
        std::fs::copy(grafana("prometheus-rules.yml"), folder.path().join("prometheus-rules.yml")).expect("the rules");
        let port = boathouse::servers::ports::free();
        let log = folder.path().join("log");
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("prometheus starts");
        let mut started = Self { url: format!("http://127.0.0.1:{port}"), child, _folder: folder };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let text = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(started.child.try_wait().expect("our child").is_none(), "prometheus ended: {}", text());
            assert!(begin.elapsed() < PATIENCE, "prometheus does not answer: {}", text());
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }

    /// What a query gives now: its result, or Prometheus' error.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.get("query", &[("query", expression)]).await;
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer["error"].to_string()),
        }
    }

    /// Every rule, as `/api/v1/rules` shows it.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.get("rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|g| g["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Waits until a query gives something.
    pub async fn wait(&self, expression: &str) {
        let begin = Instant::now();
        while self.query(expression).await.unwrap_or_default().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "Prometheus finds nothing for {expression}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let request = reqwest::Client::new().get(format!("{}/api/v1/{path}", self.url)).query(parameters);
        match request.send().await {
            // The port answers a moment before the interface does, in plain words.
            Ok(answer) => answer.json().await.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() })),
            Err(error) => serde_json::json!({ "error": error.to_string() }),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of the repository's folder `grafana`.
pub fn grafana(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana").join(name)
}

/// `prometheus` or `promtool`, fetched once for the whole test binary.
pub fn program(name: &str) -> PathBuf {
    static FETCHED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let root = FETCHED.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/prometheus.sh");
        let fetched = Command::new(script).output().expect("tools/prometheus.sh runs");
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        String::from_utf8_lossy(&fetched.stdout).trim().into()
    });
    root.join("usr/bin").join(name)
}
