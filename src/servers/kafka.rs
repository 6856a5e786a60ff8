//! Apache Kafka in combined KRaft mode: one JVM that is broker and controller, sized for a laptop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ServerError;

/// The version that tools/kafka.sh fetches.
const VERSION: &str = include_str!("../../tools/kafka/version");
const CLUSTER_ID_FILE: &str = "cluster-id";

/// Where Kafka's jars and a java program are on this machine.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    java: PathBuf,
    jars: PathBuf,
}

/// Finds Kafka, or says what is missing.
pub(super) fn find() -> Result<Installed, ServerError> {
    let jars = super::broker::cache()?.join("kafka").join(VERSION.trim()).join("lib");
    if !jars.is_dir() {
        return Err(ServerError::Missing {
            what: format!("Apache Kafka ({})", jars.display()),
            hint: "run `make tools`, or set BOATHOUSE_BROKER=host:port to use a broker that runs already".into(),
        });
    }
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) => Some(PathBuf::from(home).join("bin/java")).filter(|java| java.is_file()),
        None => super::broker::in_path("java"),
    };
    let java = java.ok_or_else(|| ServerError::Missing {
        what: "java (in JAVA_HOME or PATH)".into(),
        hint: "install Java 17 or newer, or set BOATHOUSE_BROKER=tansu for the broker without Java".into(),
    })?;
    Ok(Installed { java, jars })
}

/// Whether `folder` holds the data of a Kafka broker.
pub(super) fn has_data(folder: &Path) -> bool {
    log_dir(folder).join("meta.properties").is_file()
}

/// Writes the configuration, formats the storage the first time, and returns the command that runs the
/// broker on `port` (and its controller on `controller_port`, which may differ at every start).
pub(super) fn prepare(
    kafka: &Installed,
    folder: &Path,
    port: u16,
    controller_port: u16,
) -> Result<Command, ServerError> {
    fs::create_dir_all(folder).map_err(ServerError::io(format!("create {}", folder.display())))?;
    let properties = folder.join("server.properties");
    let text = server_properties(&log_dir(folder), port, controller_port);
    fs::write(&properties, text).map_err(ServerError::io(format!("write {}", properties.display())))?;
    if !has_data(folder) {
        format_storage(kafka, folder, &properties)?;
    }
    let mut command = java(kafka);
    command.arg("kafka.Kafka").arg(&properties);
    Ok(command)
}

fn log_dir(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn java(kafka: &Installed) -> Command {
    let mut command = Command::new(&kafka.java);
    command.args([
        "-Xmx256m",
        // With a heap this small it costs less memory and fewer threads than G1, and pauses as short.
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        // Warnings and errors, and the few lines that say how far the broker is.
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.server.BrokerLifecycleManager=info",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "-cp",
    ]);
    command.arg(kafka.jars.join("*"));
    command
}

fn format_storage(kafka: &Installed, folder: &Path, properties: &Path) -> Result<(), ServerError> {
    let output = java(kafka)
        // Over in a second: better compilers would not pay.
        .arg("-XX:TieredStopAtLevel=1")
        .args(["kafka.tools.StorageTool", "format", "--ignore-formatted"])
        .args(["-t", &cluster_id(folder)?, "-c"])
        .arg(properties)
        .stdin(Stdio::null())
        .output()
        .map_err(ServerError::io(format!("start {}", kafka.java.display())))?;
    if output.status.success() && has_data(folder) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
    Err(ServerError::Refused(format!(
        "Apache Kafka could not format its storage in {} ({}): {}",
        folder.display(),
        output.status,
        said.trim()
    )))
}

/// The id of the cluster in this folder: 16 bytes in URL-safe base64, as Kafka wants it. It is kept, so
/// that formatting that was interrupted goes on under the same id.
fn cluster_id(folder: &Path) -> Result<String, ServerError> {
    let path = folder.join(CLUSTER_ID_FILE);
    if let Ok(id) = fs::read_to_string(&path)
        && id.len() == 22
    {
        return Ok(id);
    }
    // 21 hexadecimal digits are base64 digits too; the 22nd holds the last two bits and four zero bits.
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(21);
    id.push('A');
    fs::write(&path, &id).map_err(ServerError::io(format!("write {}", path.display())))?;
    Ok(id)
}

fn server_properties(log_dir: &Path, port: u16, controller_port: u16) -> String {
    // A java properties file: a backslash starts an escape.
    let log_dir = log_dir.to_string_lossy().replace('\\', "\\\\");
    format!(
        "# Written at every start; settings made here by hand are lost.
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
# Static voters: their address is not stored, so that the port may change from start to start.
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={log_dir}
auto.create.topics.enable=false
# One broker: everything has one copy.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A group is ready when its first member is.
group.initial.rebalance.delay.ms=0
# Records of 1 MiB with keys and headers, and batches of them.
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
num.network.threads=2
num.io.threads=2
num.recovery.threads.per.data.dir=2
# Half of a 256 MiB heap otherwise.
log.cleaner.dedupe.buffer.size=8388608
# After a kill the broker may register again once its old session is over.
broker.heartbeat.interval.ms=400
broker.session.timeout.ms=2000
"
    )
}
