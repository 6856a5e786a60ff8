//! `boathouse-producer`: makes events and sends them to Kafka.

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use boathouse::producer::clock::{EventClock, now_s};
use boathouse::producer::fault::{Mix, Shares};
use boathouse::producer::generator::Generator;
use boathouse::producer::sender::{self, Pace, Plan};
use boathouse::producer::topic;
use boathouse::stop_signal::StopSignal;
use chrono::NaiveDateTime;
use clap::Parser;

/// Make the events of users who log in, click, sometimes buy, and log out, and send them to Kafka.
///
/// Without limits it goes on until Ctrl-C. The topic is created when it is missing.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Addresses of the Kafka brokers, host:port[,host:port…].
    #[arg(long, env = "BOATHOUSE__KAFKA__BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// The topic.
    #[arg(long, env = "KAFKA_TOPIC", default_value = "user-events")]
    topic: String,
    /// Partitions of the topic, when it is created.
    #[arg(long, default_value_t = topic::PARTITIONS, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Events per second; with a simulated clock (--start-time), per second of that clock.
    #[arg(long, env = "EVENTS_PER_SECOND", default_value = "5", value_parser = sender::parse_rate)]
    rate: f64,
    /// Send as fast as possible, whatever the rate.
    #[arg(long, visible_alias = "burst")]
    max_rate: bool,
    /// Users, with ids from 1.
    #[arg(long, env = "NUM_USERS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    users: u32,
    /// Stop after this many records, of all kinds together.
    #[arg(long)]
    count: Option<u64>,
    /// Stop after this time, such as 90s or 5m.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Makes the run reproducible: the same ids, users and order of events (and, with --start-time, the same bytes).
    #[arg(long)]
    seed: Option<u64>,
    /// Simulate the clock: the first event's time, UTC, as 2026-02-06T14:30:00. Times go on by the count of records,
    /// not by the wall clock.
    #[arg(long, value_parser = utc)]
    start_time: Option<i64>,
    /// Simulate the clock: spread --count records over this much event time (which ends now without --start-time).
    #[arg(long, value_parser = humantime::parse_duration, requires = "count")]
    span: Option<Duration>,
    /// Share of events (0 to 1) with a time one hour back.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    late: f64,
    /// Share of records that repeat one of the last 32 sound events, byte for byte.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    duplicate: f64,
    /// Share of records that are no events: broken JSON, wrong types, missing fields, empty values, tombstones, …
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    malformed: f64,
    /// Share of events with a time one hour ahead.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    future: f64,
    /// How long to wait for the broker at the start.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// How long a record is retried before it counts as failed.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    delivery_timeout: Duration,
    /// A setting of librdkafka, as key=value; may be repeated.
    #[arg(short = 'X', long = "property", value_parser = property, value_name = "KEY=VALUE")]
    properties: Vec<(String, String)>,
    /// Print the summary as JSON (and progress on stderr).
    #[arg(long)]
    json: bool,
    /// No progress lines.
    #[arg(long, short)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("boathouse-producer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stop = StopSignal::listen().context("cannot listen for signals")?;
    let shares = Shares {
        late: arguments.late,
        duplicate: arguments.duplicate,
        malformed: arguments.malformed,
        future: arguments.future,
    };
    let mix = Mix::new(shares).map_err(anyhow::Error::msg)?;
    let pace = if arguments.max_rate { Pace::Max } else { Pace::PerSecond(arguments.rate) };
    let config = sender::client_config(&arguments.brokers, pace, arguments.delivery_timeout, &arguments.properties);

    let waiting = |waited: Duration| {
        eprintln!("waiting for a Kafka broker at {} ({} s)", arguments.brokers, waited.as_secs());
    };
    let found =
        topic::ensure(&config, &arguments.topic, arguments.partitions, arguments.wait, waiting, || stop.asked());
    match found {
        Err(topic::TopicError::Stopped) => return Ok(ExitCode::SUCCESS),
        found => found?,
    };

    let plan = Plan {
        topic: arguments.topic.clone(),
        pace,
        clock: clock(arguments),
        count: arguments.count,
        duration: arguments.duration,
    };
    // Without a seed: one that no other run has.
    let seed = arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let generator = Generator::new(seed, arguments.users, mix);
    let progress = |line: &str| {
        if arguments.quiet {
        } else if arguments.json {
            eprintln!("{line}");
        } else {
            // Nobody reads it any more: go on sending.
            let _ = writeln!(stdout(), "{line}");
        }
    };
    let summary =
        sender::run(&config, &plan, generator, progress, || stop.asked()).context("the Kafka client failed")?;
    let text = if arguments.json { serde_json::to_string(&summary)? } else { summary.line() };
    let _ = writeln!(stdout(), "{text}");
    Ok(if summary.failed_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn clock(arguments: &Arguments) -> EventClock {
    match (arguments.start_time, arguments.span, arguments.count) {
        (None, None, _) => EventClock::Wall,
        // clap has seen to it that a span comes with a count.
        (start, Some(span), count) => {
            let start = start.unwrap_or_else(|| now_s().saturating_sub_unsigned(span.as_secs()));
            EventClock::spanning(start, span, count.unwrap_or(1))
        }
        (Some(start), None, _) => EventClock::with_rate(start, arguments.rate),
    }
}

fn utc(text: &str) -> Result<i64, String> {
    NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), "%Y-%m-%dT%H:%M:%S")
        .map(|time| time.and_utc().timestamp())
        .map_err(|error| format!("{error}; write it as 2026-02-06T14:30:00"))
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
