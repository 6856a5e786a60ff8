//! Rules between values of boathouse.toml: protected Kafka settings, secrets, addresses, limits.

use std::path::Path;

use super::super::error::ConfigErrors;
use super::super::places::Places;
use super::super::{Lakehouse, Server};
use super::{DAY, bad_cron, bad_zone};
use crate::storage::{self, Place};

/// librdkafka settings that exactly-once delivery depends on, and what has their say instead.
const PROTECTED: [(&str, &str); 14] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group"),
    ("group.instance.id", "it is kept in data_dir"),
    ("group.protocol", "it is chosen by the program"),
    ("enable.auto.commit", "positions are committed with the data"),
    ("auto.commit.enable", "positions are committed with the data"),
    ("enable.auto.offset.store", "positions are committed with the data"),
    ("auto.offset.reset", "a lost position must stop a partition, never move it; see start_at of the pipeline"),
    ("isolation.level", "aborted transactions must never land"),
    ("enable.partition.eof", "with it, librdkafka's batch call can skip a record"),
    ("partition.assignment.strategy", "it is always cooperative-sticky"),
    ("queued.max.messages.kbytes", "it is cut from memory.budget"),
    ("fetch.queue.backoff.ms", "a full queue must not put the fetcher to sleep"),
];

/// Whether a librdkafka setting holds a secret.
pub(in crate::config) fn is_secret_property(name: &str) -> bool {
    ["password", "secret", "jaas", "ssl.key", "ssl_key", "oauthbearer.config", "token"].iter().any(|s| name.contains(s))
}

/// Whether an option of the object store holds a secret.
pub(in crate::config) fn is_secret_option(name: &str) -> bool {
    ["secret", "token", "access_key_id", "customer_key"].iter().any(|s| name.contains(s)) && !name.ends_with("_file")
}

pub(in crate::config) fn server(server: &Server, places: &Places, errors: &mut ConfigErrors) {
    let mut add = |path: &str, message: String, hint: &str| {
        if !places.broken.contains(path) {
            errors.add(places.near(path), message, hint);
        }
    };
    for broker in server.kafka.brokers.split(',').map(str::trim) {
        if !is_host_port(broker) {
            add("kafka.brokers", format!("`kafka.brokers`: `{broker}` is not host:port"), "as in \"127.0.0.1:9092\"");
        }
    }
    if server.kafka.group.is_empty() {
        add("kafka.group", "`kafka.group` is empty".into(), "name the consumer group");
    }
    for (name, value) in &server.kafka.properties {
        let path = format!("kafka.properties.{name}");
        if let Some((_, instead)) = PROTECTED.iter().find(|(protected, _)| protected == name) {
            add(&path, format!("`{path}` cannot be set: {instead}"), "take it out");
        } else if let Err(e) = rdkafka::ClientConfig::new().set(name, value).create_native_config() {
            let shown = if is_secret_property(name) { "is refused".into() } else { format!("= \"{value}\": {e}") };
            add(
                &path,
                format!("`{path}` {shown}"),
                "librdkafka's CONFIGURATION.md lists all settings and their values",
            );
        }
    }
    if server.lakehouse.uri.is_empty() {
        add("lakehouse.uri", "`lakehouse.uri` is empty".into(), "name a folder, as in \"/data/lakehouse\"");
    }
    lakehouse(&server.lakehouse, &mut add);
    match url::Url::parse(&server.clickhouse.url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if !url.username().is_empty() || url.password().is_some() {
                let hint = "set clickhouse.user and clickhouse.password_file";
                add("clickhouse.url", "`clickhouse.url` holds a user or password".into(), hint);
            }
        }
        _ => add(
            "clickhouse.url",
            format!("`clickhouse.url` \"{}\" is not an HTTP address", server.clickhouse.url),
            "as in \"http://127.0.0.1:8123\"; the native port 9000 is not spoken",
        ),
    }
    if let Some(file) = &server.clickhouse.password_file {
        if !server.clickhouse.password.is_empty() {
            let message = "`clickhouse.password` and `clickhouse.password_file` are both set";
            add("clickhouse.password_file", message.into(), "leave one of them out");
        }
        if let Err(e) = readable(file) {
            let message = format!("`clickhouse.password_file` {} cannot be read: {e}", file.display());
            add("clickhouse.password_file", message, "is it mounted, and may this user read it?");
        }
    }
    if !is_host_port(&server.metrics.listen) {
        let message = format!("`metrics.listen` \"{}\" is not an address and port", server.metrics.listen);
        add("metrics.listen", message, "as in \"127.0.0.1:9464\"");
    }
    if !server.console.listen.is_empty() && !is_host_port(&server.console.listen) {
        let message = format!("`console.listen` \"{}\" is not an address and port", server.console.listen);
        add("console.listen", message, "as in \"127.0.0.1:8082\", or \"\" for no console");
    }
    let tls = [
        ("console.tls_certificate", &server.console.tls_certificate, &server.console.tls_key),
        ("console.tls_key", &server.console.tls_key, &server.console.tls_certificate),
    ];
    for (path, file, other) in tls {
        let Some(file) = file else { continue };
        if other.is_none() {
            add(path, format!("`{path}` is set without its pair"), "set console.tls_certificate and console.tls_key");
        }
        if let Err(e) = readable(file) {
            let message = format!("`{path}` {} cannot be read: {e}", file.display());
            add(path, message, "is it mounted, and may this user read it?");
        }
    }
    if server.memory.budget.0 < 16 << 20 {
        add("memory.budget", format!("`memory.budget` is {}", server.memory.budget), "give it at least 16MiB");
    }
    if server.batch.memory.0 < 64 << 20 {
        add("batch.memory", format!("`batch.memory` is {}", server.batch.memory), "give it at least 64MiB");
    }
    if let Some(total) = server.memory.total {
        let (stream, batch) = (server.memory.budget, server.batch.memory);
        if stream.0.saturating_add(batch.0) > total.0 {
            let message =
                format!("`memory.total` {total} is less than memory.budget {stream} and batch.memory {batch} together");
            add("memory.total", message, "raise it, or lower the two; left out, it is what they add up to");
        }
    }
    if server.batch.spill_max.0 < server.batch.memory.0 {
        let message = format!("`batch.spill_max` {} is less than batch.memory", server.batch.spill_max);
        add("batch.spill_max", message, "what is spilled is a multiple of what is held: at least as much");
    }
    if server.batch.spill_dir.is_empty() {
        add("batch.spill_dir", "`batch.spill_dir` is empty".into(), "as in \"{data_dir}/spill\"");
    }
    if server.batch.history_retention.is_some_and(|kept| kept < DAY) {
        add("batch.history_retention", "`batch.history_retention` is less than a day".into(), "as in \"90d\"");
    }
    let upkeep = &server.upkeep;
    if let Some((message, hint)) = bad_cron("upkeep.cron", &upkeep.cron) {
        add("upkeep.cron", message, hint);
    }
    if let Some((message, hint)) = bad_zone("upkeep.timezone", &upkeep.timezone) {
        add("upkeep.timezone", message, &hint);
    }
    if let Some((message, hint)) = bad_cron("reconcile.cron", &server.reconcile.cron) {
        add("reconcile.cron", message, hint);
    }
    if let Some((message, hint)) = bad_zone("reconcile.timezone", &server.reconcile.timezone) {
        add("reconcile.timezone", message, &hint);
    }
    if upkeep.vacuum_after < 7 * DAY || upkeep.vacuum_after > 30 * DAY {
        let message = format!("`upkeep.vacuum_after` is {}", humantime::format_duration(upkeep.vacuum_after));
        let hint =
            "readers hold files open for days, and the tables' logs say for 30 days when a file has left: 7d to 30d";
        add("upkeep.vacuum_after", message, hint);
    }
    if upkeep.merge_time.is_zero() || upkeep.merge_time > DAY {
        add("upkeep.merge_time", "`upkeep.merge_time` is not within a day".into(), "10m is a good value");
    }
    if upkeep.file_size.0 < 1 << 20 {
        add("upkeep.file_size", format!("`upkeep.file_size` is {}", upkeep.file_size), "give it at least 1MiB");
    }
    if !(1..=1024).contains(&server.batch.threads) {
        add("batch.threads", format!("`batch.threads` is {}", server.batch.threads), "give it 1 to 1024; 2 by default");
    }
    if let Some(problem) = server.history.url.problem() {
        let hint = "as in \"sqlite://{data_dir}/history.db\" or \"mysql://USER:PASSWORD@HOST/DATABASE\"";
        add("history.url", format!("`history.url` {problem}"), hint);
    }
    if let Err(e) = tracing_subscriber::EnvFilter::try_new(&server.log.filter) {
        add("log.filter", format!("`log.filter` \"{}\": {e}", server.log.filter), "as in \"info,boathouse=debug\"");
    }
    if server.shutdown.deadline.is_zero() || server.shutdown.deadline > DAY {
        add("shutdown.deadline", "`shutdown.deadline` is not within a day".into(), "30s is a good value");
    }
}

fn readable(file: &Path) -> std::io::Result<()> {
    std::fs::read(file).map(drop)
}

fn lakehouse(lakehouse: &Lakehouse, add: &mut impl FnMut(&str, String, &str)) {
    let place = Place::of(&lakehouse.uri);
    if let Err(e) = &place
        && !lakehouse.uri.is_empty()
    {
        add(
            "lakehouse.uri",
            format!("`lakehouse.uri` {e}"),
            "name a folder, or a bucket as in \"s3://bucket/lakehouse\"",
        );
    }
    for (name, value) in &lakehouse.options {
        let path = format!("lakehouse.options.{name}");
        if matches!(place, Ok(Place::Folder(_))) {
            add(&path, format!("`{path}` is set, and `lakehouse.uri` is a folder"), "take it out, or name a bucket");
        } else if let Err(e) = storage::check_option(name, value) {
            add(&path, format!("`{path}` {e}"), "docs/operations.md, \"A lakehouse on S3\", names the common ones");
        }
    }
    if storage::is_half_a_key(&lakehouse.options) {
        let message = "`lakehouse.options` has one of aws_access_key_id and aws_secret_access_key".into();
        add("lakehouse.options", message, "set both, or neither");
    }
}

fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::PROTECTED;

    #[test]
    fn what_the_client_decides_cannot_be_configured() {
        for name in crate::kafka::settings::PROTECTED {
            assert!(PROTECTED.iter().any(|(protected, _)| *protected == name), "{name}");
        }
    }
}
