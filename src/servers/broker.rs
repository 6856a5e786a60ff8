//! The Kafka broker of the demo and the tests: Apache Kafka where Java is, else tansu, or one that is
//! there already.

use std::env;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::seat::Seat;
use super::{Child, ServerError, kafka, ports, tansu};

/// The environment variable that chooses the broker: `kafka`, `tansu` or `host:port`.
pub const CHOICE_VARIABLE: &str = "BOATHOUSE_BROKER";
/// A JVM on a busy two-core machine, with a log to recover, takes some seconds.
const READY_LIMIT: Duration = Duration::from_secs(120);
const NAME: &str = "the Kafka broker";

/// Which broker to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BrokerChoice {
    /// The one whose data the folder holds; else Apache Kafka where it is set up; else tansu.
    #[default]
    Auto,
    /// Apache Kafka.
    Kafka,
    /// tansu.
    Tansu,
    /// One that runs already, at `host:port[,host:port…]`.
    External(String),
}

impl BrokerChoice {
    /// What `BOATHOUSE_BROKER` says; `Auto` when it is not set.
    pub fn from_env() -> Result<Self, ServerError> {
        match env::var(CHOICE_VARIABLE) {
            Ok(value) => value.parse(),
            Err(_) => Ok(Self::Auto),
        }
    }
}

impl FromStr for BrokerChoice {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        match text.trim() {
            "" | "auto" => Ok(Self::Auto),
            "kafka" => Ok(Self::Kafka),
            "tansu" => Ok(Self::Tansu),
            address if address.split(',').all(is_host_and_port) => Ok(Self::External(address.to_owned())),
            other => Err(ServerError::Refused(format!(
                "{CHOICE_VARIABLE} is '{other}'; it must be kafka, tansu, or the host:port of a broker"
            ))),
        }
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// Apache Kafka, our child process.
    Kafka,
    /// tansu, our child process.
    Tansu,
    /// Somebody else's.
    External,
}

/// A broker that answers. Dropping it stops the process, if it is ours.
#[derive(Debug)]
pub struct Broker {
    kind: BrokerKind,
    folder: PathBuf,
    port: u16,
    address: String,
    /// Stays empty where the broker is somebody else's.
    seat: Seat,
}

impl Broker {
    /// Starts the broker with its data in `folder`, on 127.0.0.1:`port` (0: any free port), and waits until
    /// it answers a metadata request. An external broker only has to answer.
    pub fn start(choice: &BrokerChoice, folder: &Path, port: u16) -> Result<Self, ServerError> {
        let kind = resolve(choice, folder)?;
        if let BrokerChoice::External(address) = choice {
            return Self::external(address, folder);
        }
        if port != 0 {
            Self::require_port(choice, port)?;
            return Self::launch(kind, folder, port);
        }
        // A port that was free a moment ago may be taken when the broker binds it.
        let mut attempts = 3;
        loop {
            let result = Self::launch(kind, folder, ports::free());
            attempts -= 1;
            match result {
                Err(ServerError::Died { ref last_lines, .. }) if attempts > 0 && last_lines.contains("in use") => {}
                result => return result,
            }
        }
    }

    /// Fails when a broker of our own would find `port` taken.
    pub fn require_port(choice: &BrokerChoice, port: u16) -> Result<(), ServerError> {
        if matches!(choice, BrokerChoice::External(_)) {
            return Ok(());
        }
        let hint = format!(
            "choose another one with --kafka-port, or set {CHOICE_VARIABLE}=127.0.0.1:{port} to use the broker that \
             runs there"
        );
        ports::require_free(NAME, port, hint)
    }

    fn external(address: &str, folder: &Path) -> Result<Self, ServerError> {
        let start = Instant::now();
        while !answers(address) {
            if start.elapsed() > Duration::from_secs(15) {
                return Err(ServerError::Refused(format!(
                    "no Kafka broker answers at {address} ({CHOICE_VARIABLE}): start it, or set {CHOICE_VARIABLE}=kafka to run one here"
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self::idle(BrokerKind::External, folder, 0, address.to_owned()))
    }

    fn launch(kind: BrokerKind, folder: &Path, port: u16) -> Result<Self, ServerError> {
        let mut broker = Self::idle(kind, folder, port, format!("127.0.0.1:{port}"));
        broker.restart()?;
        Ok(broker)
    }

    fn idle(kind: BrokerKind, folder: &Path, port: u16, address: String) -> Self {
        let seat = Seat::new(NAME, folder.join("broker.log"), READY_LIMIT);
        Self { kind, folder: folder.to_owned(), port, address, seat }
    }

    /// The bootstrap address, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What runs.
    pub fn kind(&self) -> BrokerKind {
        self.kind
    }

    /// The process, if it is ours: for its pid, its log, signals, and whether it still runs.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.seat.child()
    }

    /// Stops the process, if it is ours.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.seat.stop()
    }

    /// Starts the process again on the same port and data, after [`Self::stop`] or a kill; stops it if it runs.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        let command = match self.kind {
            BrokerKind::Kafka => kafka::prepare(&kafka::find()?, &self.folder, self.port, ports::free())?,
            BrokerKind::Tansu => tansu::prepare(&tansu::find()?, &self.folder, self.port)?,
            BrokerKind::External => return Ok(()),
        };
        let address = self.address.clone();
        self.seat.start(command, || answers(&address))
    }
}

/// Turns `Auto` into what is there, and refuses a folder that holds another broker's data.
fn resolve(choice: &BrokerChoice, folder: &Path) -> Result<BrokerKind, ServerError> {
    let refuse = |holds: &str, wanted: &str| {
        Err(ServerError::Refused(format!(
            "{} holds the data of {holds}, and {CHOICE_VARIABLE} asks for {wanted}: set {CHOICE_VARIABLE}={holds}, or start over with `make clean-data`",
            folder.display()
        )))
    };
    match choice {
        BrokerChoice::External(_) => Ok(BrokerKind::External),
        BrokerChoice::Kafka if tansu::has_data(folder) => refuse("tansu", "kafka"),
        BrokerChoice::Tansu if kafka::has_data(folder) => refuse("kafka", "tansu"),
        BrokerChoice::Kafka => Ok(BrokerKind::Kafka),
        BrokerChoice::Tansu => Ok(BrokerKind::Tansu),
        BrokerChoice::Auto if kafka::has_data(folder) => Ok(BrokerKind::Kafka),
        BrokerChoice::Auto if tansu::has_data(folder) => Ok(BrokerKind::Tansu),
        BrokerChoice::Auto => match (kafka::find(), tansu::find()) {
            (Ok(_), _) => Ok(BrokerKind::Kafka),
            (Err(_), Ok(_)) => Ok(BrokerKind::Tansu),
            (Err(error), Err(_)) => Err(error),
        },
    }
}

/// Whether a broker at `address` answers a metadata request that names at least one broker.
fn answers(address: &str) -> bool {
    // A plain connection first: librdkafka would log every refused one as an error.
    let connects = address.split(',').any(|one| {
        one.to_socket_addrs().is_ok_and(|addresses| {
            addresses.into_iter().any(|a| TcpStream::connect_timeout(&a, Duration::from_millis(500)).is_ok())
        })
    });
    if !connects {
        return false;
    }
    let client: Result<BaseConsumer, _> =
        ClientConfig::new().set("bootstrap.servers", address).set_log_level(RDKafkaLogLevel::Emerg).create();
    client.is_ok_and(|client| {
        client.fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}

/// The folder where the tools are kept: `${XDG_CACHE_HOME:-$HOME/.cache}/boathouse`.
pub(super) fn cache() -> Result<PathBuf, ServerError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("boathouse"))
        .ok_or_else(|| {
            ServerError::Refused(
                "neither XDG_CACHE_HOME nor HOME is set, so the tools that `make tools` sets up cannot be found".into(),
            )
        })
}

/// The first program of that name in PATH.
pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_read_or_refused_with_what_is_allowed() {
        let read = |text: &str| text.parse::<BrokerChoice>();
        assert_eq!(read("").unwrap(), BrokerChoice::Auto);
        assert_eq!(read("kafka").unwrap(), BrokerChoice::Kafka);
        assert_eq!(read("tansu").unwrap(), BrokerChoice::Tansu);
        let two = "one:9092,two:9093";
        assert_eq!(read(two).unwrap(), BrokerChoice::External(two.into()));
        for wrong in ["redpanda", "host:", ":9092", "host:99999", "a:1,b"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("kafka, tansu"), "{error}");
        }
    }

    #[test]
    fn a_folder_stays_with_the_broker_that_wrote_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tansu.db"), "").unwrap();
        let kind = resolve(&BrokerChoice::Auto, folder.path()).unwrap();
        assert_eq!(kind, BrokerKind::Tansu);
        let error = resolve(&BrokerChoice::Kafka, folder.path()).unwrap_err();
        assert!(error.to_string().contains("clean-data"), "{error}");
    }

    #[test]
    fn nothing_listening_is_no_broker() {
        assert!(!answers(&format!("127.0.0.1:{}", ports::free())));
    }
}
