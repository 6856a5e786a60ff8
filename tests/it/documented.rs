//! Every command block of README and the guide, run as it is written, on a demo: each does its work and says something.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use boathouse::servers::ports;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

use crate::deploy::pages;

/// How long the demo may take to show its first event, and a command to end.
const PATIENCE: Duration = Duration::from_secs(300);
/// Commands that go on until somebody stops them, and for how many seconds they are watched: longer where they have said
/// nothing by then, as on a machine that does much else.
const ENDLESS: [&str; 4] = ["tap", "top", "topic tail user-events", "run --config"];
const WATCHED: [u64; 2] = [6, 60];

/// What no test can run from here, with the reason; each must still be in some page.
const NOT_RUN: [(&str, &str); 4] = [
    ("make", "it would run this test"),
    ("cargo", "it would run this test"),
    ("docker", "it wants a Docker engine"),
    ("rsync", "it copies to places of the reader's"),
];

/// How the pages name a dead letter. Each command that does gets one of its own.
const LETTER: &str = "user-events/0/2/1041";
const LETTERS: usize = 12;

/// A demo in a folder that looks like a checkout.
struct Demo {
    folder: tempfile::TempDir,
    ports: [u16; 4],
    child: Child,
    /// Places of dead letters that no command has had yet.
    letters: RefCell<Vec<String>>,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::os::unix::fs::symlink(root.join("config"), folder.path().join("config")).expect("a link");
        std::fs::create_dir(folder.path().join("target")).expect("a folder");
        std::os::unix::fs::symlink(programs(), folder.path().join("target/release")).expect("a link");
        let ports = [ports::free(), ports::free(), ports::free(), ports::free()];
        let log = std::fs::File::create(folder.path().join("demo.log")).expect("a log");
        let options = ["--kafka-port", "--clickhouse-port", "--metrics-port", "--console-port"];
        let child = Command::new(env!("CARGO_BIN_EXE_boathouse"))
            .args(["demo", "--json", "--rate", "50"])
            .args(options.iter().zip(ports).flat_map(|(option, port)| [(*option).to_owned(), port.to_string()]))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the demo starts");
        let mut demo = Self { folder, ports, child, letters: RefCell::default() };
        demo.wait(
            "windows are served",
            "--on clickhouse 'select count() > 0 as found from realtime.events_per_minute'",
        );
        *demo.letters.borrow_mut() = letters(&format!("127.0.0.1:{}", ports[0]));
        std::fs::write(demo.folder.path().join("corrected.json"), event("8")).expect("a file");
        let landed =
            format!("'select count(*) >= {LETTERS} as found from bronze.user_events where parse_error is not null'");
        demo.wait("the dead letters have landed", &landed);
        demo
    }

    /// Until a statement finds it so.
    fn wait(&mut self, what: &str, statement: &str) {
        let begin = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("our child");
            let log = || std::fs::read_to_string(self.folder.path().join("demo.log")).unwrap_or_default();
            assert!(ended.is_none(), "the demo ended: {}", log());
            let output = self.bash("", &format!("boathouse --json sql {statement}"));
            let answer = String::from_utf8_lossy(&output.stdout);
            if answer.contains("true") || answer.contains(":1") {
                return;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(begin.elapsed() < PATIENCE, "not yet: {what}: {answer}{said}\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a line of a page behind the page's own exports.
    fn bash(&self, exports: &str, line: &str) -> Output {
        let [kafka, clickhouse, metrics, console] = self.ports;
        let line = line.replace("127.0.0.1:8123", &format!("127.0.0.1:{clickhouse}"));
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .args(["bash", "-euo", "pipefail", "-c", &format!("{exports}\n{line}")])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", programs().display()))
            .env("BOATHOUSE__DATA_DIR", "data")
            .env("BOATHOUSE__LAKEHOUSE__URI", "data/lakehouse")
            .env("BOATHOUSE__KAFKA__BROKERS", format!("127.0.0.1:{kafka}"))
            .env("BOATHOUSE__CLICKHOUSE__URL", format!("http://127.0.0.1:{clickhouse}"))
            .env("BOATHOUSE__METRICS__LISTEN", format!("127.0.0.1:{metrics}"))
            .env("BOATHOUSE__CONSOLE__LISTEN", format!("127.0.0.1:{console}"))
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// What stands for a name in capitals that a reader replaces.
    fn fill(&self, exports: &str, line: &str) -> String {
        let answer = |command: &str| {
            let output = self.bash(exports, command);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // Rows come a line each, runs as one list.
            let first = serde_json::Deserializer::from_str(&text).into_iter::<Value>().next();
            first
                .unwrap_or(Ok(Value::Null))
                .unwrap_or_else(|e| panic!("{command}: {e}: {text}{}", String::from_utf8_lossy(&output.stderr)))
        };
        let mut line = line.to_owned();
        if line.contains(LETTER) {
            let letter = self.letters.borrow_mut().pop();
            line = line.replace(LETTER, &letter.expect("a letter for each command: raise LETTERS"));
        }
        if line.contains("EVENT_ID") {
            let query =
                "boathouse --json sql \"select event_id from bronze.user_events where time_status = 'ok' limit 1\"";
            let found = answer(query);
            let id = found["event_id"].as_str();
            line = line.replace("EVENT_ID", id.unwrap_or_else(|| panic!("no event: {found}")));
        }
        if line.split_whitespace().any(|word| word == "RUN") {
            let found = answer("boathouse --json batch history");
            let run = found.pointer("/0/run_id").or(found.get("run_id"));
            let run = run.unwrap_or_else(|| panic!("no run: {found}")).to_string();
            line = line.replace("RUN", run.trim_matches('"'));
        }
        line
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // SAFETY: kill takes two integers; the child is ours and not yet reaped.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// An event whose `user_id` reads so.
fn event(user_id: &str) -> String {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S");
    let id = uuid::Uuid::new_v4();
    format!(
        r#"{{"event_id":"{id}","user_id":{user_id},"event_type":"click","page":"/","timestamp":"{now}","source":"web"}}"#
    )
}

/// Records whose `user_id` is no number, and their places.
fn letters(broker: &str) -> Vec<String> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", broker).create().expect("a producer");
    let send = async || {
        let value = event("\"seven\"");
        let record = FutureRecord::<(), _>::to("user-events").payload(&value);
        let sent = producer.send(record, PATIENCE).await.expect("the broker takes it");
        format!("user-events/0/{}/{}", sent.partition, sent.offset)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(futures::future::join_all((0..LETTERS).map(|_| send())))
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_boathouse")).parent().expect("a folder").to_owned()
}

/// The lines of a page's blocks without a language, which are commands where they begin with a program's name.
fn lines(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect(page);
    let blocks = text.split("\n```").skip(1).step_by(2);
    let plain = blocks.filter_map(|block| block.strip_prefix('\n'));
    plain.flat_map(str::lines).map(str::trim_end).filter(|line| !line.is_empty()).map(String::from).collect()
}

fn program(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default().trim_start_matches("target/release/")
}

#[test]
fn every_command_of_readme_and_guide_does_its_work() {
    let demo = Demo::start();
    let (mut ran, mut left, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for page in pages() {
        let mut exports = String::new();
        for line in lines(&page) {
            let name = program(&line);
            if name == "export" {
                exports = format!("{exports}{line}\n");
            } else if NOT_RUN.iter().any(|(left, _)| *left == name) {
                left.insert(name.to_owned());
            } else if ["boathouse", "boathouse-clickhouse", "boathouse-producer", "curl"].contains(&name) {
                ran += 1;
                wrong.extend(failure(&demo, &exports, &line).map(|why| format!("{page}: {line}\n{why}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(ran >= 35, "only {ran} commands were run");
    let stale: Vec<_> = NOT_RUN.iter().filter(|(name, _)| !left.contains(*name)).collect();
    assert!(stale.is_empty(), "no page has these any more: {stale:?}");
}

/// What is wrong with a command, if anything is: it must succeed and say something.
fn failure(demo: &Demo, exports: &str, line: &str) -> Option<String> {
    let filled = demo.fill(exports, line);
    let command = filled.split(" #").next().unwrap_or(&filled).trim();
    let server = command.starts_with("boathouse-clickhouse");
    let endless =
        server || ENDLESS.iter().any(|end| command.ends_with(end) || command.contains(&format!("boathouse {end} ")));
    let output = if endless {
        // A second server of the reader's own would want the demo's ports and folders.
        let own =
            command.replace("--path DIR", "--path own").replace("--listen 127.0.0.1:8123", "--listen 127.0.0.1:0");
        let listen = |key: &str| format!("BOATHOUSE__{key}__LISTEN=127.0.0.1:{} ", ports::free());
        let own_places = match command.contains(" run ") {
            true => format!("{}{}BOATHOUSE__DATA_DIR=own-data ", listen("METRICS"), listen("CONSOLE")),
            false => String::new(),
        };
        let watch = |seconds: u64| {
            demo.bash(exports, &format!("{own_places}timeout --preserve-status --signal INT {seconds} {own}"))
        };
        let [short, long] = WATCHED;
        let output = watch(short);
        match output.stdout.is_empty() && output.stderr.is_empty() {
            true => watch(long),
            false => output,
        }
    } else if command.ends_with("sql --on clickhouse") {
        demo.bash(exports, &format!("echo 'select 1' | {command}"))
    } else {
        demo.bash(exports, &filled)
    };
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    let ended_well = output.status.success() || (endless && output.status.code() == Some(130));
    match ended_well {
        false => Some(format!("{}: {out}\n{err}", output.status)),
        true if out.is_empty() && err.is_empty() => Some("it says nothing".into()),
        true => None,
    }
}
