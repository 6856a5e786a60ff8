//! `boathouse demo`: broker, engine, daemon and producer on this machine, with a live view; gone on Ctrl-C.

mod look;
mod settings;
mod stack;
mod view;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::Outcome;
use crate::producer::sender;
use crate::stop_signal::StopSignal;
use look::Looker;
use settings::Settings;
use stack::Stack;

/// How often a terminal is drawn anew, and how often a line is printed elsewhere.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Start everything on this machine: Kafka broker, ClickHouse engine, daemon and producer.
///
/// A second demo on the same folder goes on where the first stopped.
#[derive(Debug, Args)]
pub struct DemoCommand {
    /// Folder for everything that is kept.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Events per second.
    #[arg(long, env = "EVENTS_PER_SECOND", default_value = "5", value_parser = sender::parse_rate)]
    rate: f64,
    /// Users.
    #[arg(long, env = "NUM_USERS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    users: u32,
    /// Port of the Kafka broker.
    #[arg(long, default_value_t = 9092)]
    kafka_port: u16,
    /// Port of the ClickHouse engine's HTTP interface.
    #[arg(long, default_value_t = 8123)]
    clickhouse_port: u16,
    /// Port of the daemon's metrics and health checks.
    #[arg(long, default_value_t = 9464)]
    metrics_port: u16,
    /// Port of the console.
    #[arg(long, default_value_t = 8082)]
    console_port: u16,
    /// Stop by itself after this time, such as 90s.
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
}

impl DemoCommand {
    /// Runs the demo until Ctrl-C.
    pub(crate) fn run(self, context: &super::Context) -> anyhow::Result<Outcome> {
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let settings = Settings::new(&self, context.config_path.as_deref())?;
        let json = context.json;
        let say = |text: &str| {
            // With --json stdout is for objects alone. Nobody reading is no reason to stop.
            let _ = if json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") };
        };
        let mut stack = Stack::default();
        let started = stack.start(&settings, &stop, say);
        let watched = started.and_then(|()| self.watch(&settings, &mut stack, &stop, json));
        if let Err(error) = &watched {
            // Said before the rest is stopped, which takes its time.
            eprintln!("\nboathouse demo: {error:#}\n");
        }
        let clean = stack.stop(say);
        Ok(if watched.is_ok() && clean { Outcome::Right } else { Outcome::Wrong })
    }

    /// Shows what goes on until somebody asks to stop, time is up, or a part dies.
    fn watch(&self, settings: &Settings, stack: &mut Stack, stop: &StopSignal, json: bool) -> anyhow::Result<()> {
        let mut looker = Looker::new(settings)?;
        let mut screen = view::Screen::default();
        let mut out = io::stdout();
        let live = !json && io::stdout().is_terminal();
        let interval = if live { DRAW_INTERVAL } else { LINE_INTERVAL };
        let begin = Instant::now();
        let mut next = begin + DRAW_INTERVAL;
        let mut batch_asked = false;
        loop {
            while Instant::now() < next {
                if stop.asked() || self.duration.is_some_and(|limit| begin.elapsed() >= limit) {
                    return Ok(());
                }
                #[allow(
                    clippy::disallowed_methods,
                    reason = "a program without actors that waits for a signal or the time"
                )]
                std::thread::sleep(Duration::from_millis(50));
            }
            next += interval;
            stack.check()?;
            if begin.elapsed() >= stack::FIRST_BATCH && !std::mem::replace(&mut batch_asked, true) {
                stack.first_batch(settings)?;
            }
            let sample = looker.look();
            // A terminal or pipe that is gone does not end the demo.
            let _ = if live {
                screen.draw(&view::lines(&sample), &mut out)
            } else if json {
                serde_json::to_writer(&mut out, &sample).map_err(io::Error::from).and_then(|()| writeln!(out))
            } else {
                writeln!(out, "{}", view::one_line(&sample))
            };
        }
    }
}
