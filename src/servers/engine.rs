//! The ClickHouse engine of the demo and the tests: `boathouse-clickhouse` as a child process.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::seat::Seat;
use super::{Child, ServerError, ports};

const NAME: &str = "the ClickHouse engine";
const READY_LIMIT: Duration = Duration::from_secs(120);

/// An engine that answers over HTTP. Dropping it stops the process.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    arguments: Vec<String>,
    seat: Seat,
}

impl Engine {
    /// Starts the engine beside the program that runs now, with its data in `folder`, on 127.0.0.1:`port`
    /// (0: any free port), and waits until it answers `/ping`.
    pub fn start(folder: &Path, port: u16) -> Result<Self, ServerError> {
        Self::start_with(&program_beside_us("boathouse-clickhouse")?, folder, port, &[])
    }

    /// Starts `program` as the engine, with further arguments.
    pub fn start_with(program: &Path, folder: &Path, port: u16, arguments: &[&str]) -> Result<Self, ServerError> {
        let port = if port == 0 { ports::free() } else { port };
        Self::require_port(port)?;
        let mut engine = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            port,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            // Beside the data, not in it: the folder is the engine's own.
            seat: Seat::new(NAME, folder.with_extension("log"), READY_LIMIT),
        };
        engine.restart()?;
        Ok(engine)
    }

    /// Fails when an engine would find `port` taken.
    pub fn require_port(port: u16) -> Result<(), ServerError> {
        ports::require_free(NAME, port, "choose another one with --clickhouse-port")
    }

    /// The address as a URL, `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The process: for its pid, its log, signals, and whether it still runs.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.seat.child()
    }

    /// Stops the process.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.seat.stop()
    }

    /// Starts the process again on the same port and data, after [`Self::stop`] or a kill; stops it if it runs.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let mut command = Command::new(&self.program);
        command
            .arg("--path")
            .arg(&self.folder)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(&self.arguments);
        let port = self.port;
        self.seat.start(command, || answers(port))
    }
}

/// Whether `GET /ping` is answered with `Ok.`.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let limit = Duration::from_secs(2);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200") && answer.trim_end().ends_with("Ok."))
    };
    ask().unwrap_or(false)
}

/// The path of one of our programs: beside the one that runs now (or one folder up, where Cargo puts the
/// programs when a test runs).
pub fn program_beside_us(name: &str) -> Result<PathBuf, ServerError> {
    let current = env::current_exe().map_err(ServerError::io("find the running program"))?;
    let folders = current.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| ServerError::Missing {
        what: format!("the program {name}, beside {}", current.display()),
        hint: "build all programs with `cargo build --release`".into(),
    })
}
