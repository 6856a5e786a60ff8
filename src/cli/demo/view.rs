//! A sample as text: a block that is drawn over itself on a terminal, or one line elsewhere.

use std::io::{self, Write};

use chrono::{DateTime, Local, Utc};

use super::look::{AggregateSample, Sample, Window};
use crate::telemetry::BatchStatus;

/// Columns when the terminal does not tell.
const WIDTH: usize = 100;

/// The lines of the live view.
pub(super) fn lines(sample: &Sample) -> Vec<String> {
    let mut lines = vec![format!("{}  {}", clock(sample.time), state(sample))];
    if let Ok(daemon) = &sample.daemon {
        lines.push(format!(
            "events     {}/s   {} read by {} partitions   lag {}   late {}  future {}  unparsed {}",
            rate(daemon.events_per_second),
            daemon.record_count,
            daemon.partition_count,
            daemon.lag_records.map_or("unknown".into(), |lag| lag.to_string()),
            daemon.late_record_count,
            daemon.future_record_count,
            daemon.unparsed_record_count
        ));
        lines.push(format!(
            "not yet    {} in Bronze   {} in ClickHouse   memory {}",
            daemon.bronze_pending_records,
            daemon.realtime_pending_records,
            daemon.resident_bytes.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20))
        ));
        lines.extend(daemon.batches.iter().map(|status| format!("batch      {}", batch(status))));
        lines.extend(daemon.reasons.iter().map(|reason| format!("not ready: {reason}")));
    }
    for aggregate in &sample.aggregates {
        lines.push(String::new());
        lines.push(format!("realtime.{}", aggregate.name));
        match &aggregate.windows {
            Err(error) => lines.push(format!("  {error}")),
            Ok(windows) if windows.is_empty() => lines.push("  no window yet".into()),
            Ok(windows) => lines.extend(windows.iter().map(|w| format!("  {}   {}", w.window_start, counts(w)))),
        }
    }
    lines
}

/// The sample as one line, for logs and pipes.
pub(super) fn one_line(sample: &Sample) -> String {
    let mut line = format!("{}  {}", clock(sample.time), state(sample));
    if let Ok(daemon) = &sample.daemon {
        line += &format!(
            "  {} events/s  {} read  lag {}",
            rate(daemon.events_per_second),
            daemon.record_count,
            daemon.lag_records.map_or("unknown".into(), |lag| lag.to_string()),
        );
        for reason in &daemon.reasons {
            line += &format!("  ({reason})");
        }
    }
    if let Some(AggregateSample { name, windows }) = sample.aggregates.first() {
        match windows {
            Err(error) => line += &format!("  {name}: {error}"),
            Ok(windows) => match windows.first() {
                None => line += &format!("  {name}: no window yet"),
                Some(w) => line += &format!("  {name} {}: {}", w.window_start, counts(w)),
            },
        }
    }
    line
}

fn state(sample: &Sample) -> String {
    match &sample.daemon {
        Ok(daemon) if daemon.ready => "ready".into(),
        Ok(_) => "not ready".into(),
        Err(error) => format!("the daemon does not answer: {error}"),
    }
}

/// How a pipeline's batch stands, in a line.
fn batch(status: &BatchStatus) -> String {
    let BatchStatus { pipeline, state } = status;
    if let Some(running) = &state.running {
        return format!("{pipeline} is at {}", running.task.as_deref().unwrap_or("its start"));
    }
    let last = state.last.as_ref().map_or_else(
        || "has not run yet".into(),
        |last| {
            format!(
                "{} at {}{}",
                last.outcome,
                clock(last.ended),
                last.error.as_ref().map_or(String::new(), |e| format!(" ({e})"))
            )
        },
    );
    format!("{pipeline} {last}{}", state.next_slot.map_or(String::new(), |next| format!(", next {}", clock(next))))
}

/// The time of day where the terminal is.
fn clock(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%H:%M:%S").to_string()
}

fn rate(events_per_second: Option<f64>) -> String {
    match events_per_second {
        None => "-".into(),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn counts(window: &Window) -> String {
    let one = |(values, count): &(String, u64)| {
        if values.is_empty() { count.to_string() } else { format!("{values} {count}") }
    };
    window.counts.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// Draws a block of lines over the one before.
#[derive(Default)]
pub(super) struct Screen {
    drawn: usize,
}

impl Screen {
    pub(super) fn draw(&mut self, lines: &[String], out: &mut impl Write) -> io::Result<()> {
        let (width, height) = size();
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the block's first line, and clear from there.
            text += &format!("\x1b[{}A\x1b[J", self.drawn);
        }
        // A block taller than the screen, or a wrapped line, could not be drawn over.
        let shown = &lines[..lines.len().min(height.saturating_sub(1))];
        for line in shown {
            text.extend(line.chars().filter(|c| !c.is_control()).take(width));
            text.push('\n');
        }
        self.drawn = shown.len();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// Columns and rows of the terminal at stdout.
fn size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize to the pointer, which is valid for one.
    let known = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) } == 0;
    match (known, usize::from(size.ws_col), usize::from(size.ws_row)) {
        (true, columns @ 1.., rows @ 1..) => (columns, rows),
        _ => (WIDTH, 50),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::look::DaemonSample;
    use crate::telemetry::BatchState;

    fn sample() -> Sample {
        let window = |start: &str, counts: &[(&str, u64)]| Window {
            window_start: start.into(),
            counts: counts.iter().map(|(values, count)| ((*values).into(), *count)).collect(),
        };
        Sample {
            time: DateTime::UNIX_EPOCH,
            daemon: Ok(DaemonSample {
                ready: true,
                reasons: Vec::new(),
                events_per_second: Some(5.04),
                record_count: 100,
                lag_records: Some(2),
                bronze_pending_records: 7,
                realtime_pending_records: 1,
                late_record_count: 0,
                future_record_count: 0,
                unparsed_record_count: 0,
                partition_count: 3,
                resident_bytes: Some(64 << 20),
                batches: vec![BatchStatus { pipeline: "user_events".into(), state: BatchState::default() }],
            }),
            aggregates: vec![
                AggregateSample {
                    name: "events_per_minute".into(),
                    windows: Ok(vec![window("14:32:00", &[("click", 3), ("login", 1)])]),
                },
                AggregateSample { name: "purchases_per_minute".into(), windows: Err("down".into()) },
            ],
        }
    }

    #[test]
    fn one_line_holds_the_figures() {
        let line = one_line(&sample());
        let (_, line) = line.split_once("  ").unwrap();
        assert_eq!(line, "ready  5.0 events/s  100 read  lag 2  events_per_minute 14:32:00: click 3  login 1");
    }

    #[test]
    fn the_block_is_drawn_over_itself_and_fits() {
        let lines = lines(&sample());
        assert!(lines.iter().any(|line| line == "  14:32:00   click 3  login 1"), "{lines:?}");
        assert!(lines.iter().any(|line| line == "  down"));
        assert!(lines.iter().any(|line| line == "batch      user_events has not run yet"), "{lines:?}");
        let mut screen = Screen::default();
        let mut out = Vec::new();
        screen.draw(&lines, &mut out).unwrap();
        screen.draw(&["one".to_owned()], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(&format!("\x1b[{}A\x1b[Jone\n", lines.len())), "{text}");
    }
}
