//! The newest lines of the logs that are looked at: a look each second reads what came since the one before. And what is
//! searched for in a whole log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::history::{History, Line};
use crate::batch::run::graph::Task;

/// Lines of a log that a live page shows.
pub const LINES_MAX: usize = 500;
/// Logs that are kept, and for how long without a look.
const LOGS_MAX: usize = 32;
const UNUSED_MAX: Duration = Duration::from_secs(60);

/// Lines of a log that one step of a search reads.
const STEP: u32 = 10_000;

/// The lines of a search in a log.
pub struct Found {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// Older lines that fit, too, and were left out.
    pub left_out: usize,
}

/// Which lines of a log are wanted; what is none is any.
#[derive(Debug, Default)]
pub struct Wanted {
    task: Option<Task>,
    attempt: Option<i64>,
    /// In small letters.
    text: String,
}

impl Wanted {
    /// Lines of a task, of one attempt at it, that contain a text, in capitals or small letters.
    pub fn new(task: Option<Task>, attempt: Option<i64>, text: &str) -> Self {
        Self { task, attempt, text: text.to_lowercase() }
    }

    /// What the history itself looks for.
    pub fn task(&self) -> Option<Task> {
        self.task
    }

    /// Whether a line of the task is wanted.
    pub fn fits(&self, line: &Line) -> bool {
        self.attempt.is_none_or(|attempt| attempt == line.attempt) && contains(&line.message, &self.text)
    }
}

/// The newest lines of a run's whole log that are wanted.
pub async fn search(history: &History, run_id: &str, wanted: &Wanted, most: usize) -> anyhow::Result<Found> {
    let (mut lines, mut left_out, mut after) = (VecDeque::new(), 0, 0);
    loop {
        let read = history.lines_at_most(run_id, wanted.task, after, STEP).await?;
        let is_last = read.len() < STEP as usize;
        after = read.last().map_or(after, |line| line.line);
        lines.extend(read.into_iter().filter(|line| wanted.fits(line)));
        let beyond = lines.len().saturating_sub(most);
        lines.drain(..beyond);
        left_out += beyond;
        if is_last {
            return Ok(Found { lines: lines.into(), left_out });
        }
    }
}

/// Whether a message contains a text that is in small letters already.
fn contains(message: &str, text: &str) -> bool {
    text.is_empty() || message.to_lowercase().contains(text)
}

struct Tail {
    used: Instant,
    lines: Arc<[Line]>,
}

/// The logs. Clones share them.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<HashMap<String, Tail>>>);

impl Logs {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Tail>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest lines of a run's log, oldest first.
    pub async fn newest(&self, history: &History, run_id: &str) -> anyhow::Result<Arc<[Line]>> {
        let known = self.with(|logs| logs.get(run_id).map(|tail| tail.lines.clone()));
        let after = match known.as_ref().and_then(|lines| lines.last()) {
            Some(last) => last.line,
            None => history.last_line(run_id).await? - LINES_MAX as i64,
        };
        let new = history.lines_at_most(run_id, None, after, LINES_MAX as u32).await?;
        let lines = joined(known, new);
        self.with(|logs| {
            logs.retain(|_, tail| tail.used.elapsed() < UNUSED_MAX);
            if logs.len() < LOGS_MAX || logs.contains_key(run_id) {
                logs.insert(run_id.to_owned(), Tail { used: Instant::now(), lines: lines.clone() });
            }
        });
        Ok(lines)
    }
}

/// What was known with what came since, the newest [`LINES_MAX`] of it.
fn joined(known: Option<Arc<[Line]>>, new: Vec<Line>) -> Arc<[Line]> {
    let known = known.unwrap_or_else(|| Arc::from([]));
    if new.is_empty() {
        return known;
    }
    let passed_over = (known.len() + new.len()).saturating_sub(LINES_MAX);
    known.iter().cloned().chain(new).skip(passed_over).collect()
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn line(line: i64) -> Line {
        let (task, severity, message) = ("run_bronze_to_silver".into(), "INFO".into(), format!("line {line}"));
        Line { line, task, attempt: 1, at: Utc::now(), severity, message }
    }

    #[test]
    fn capitals_are_small_letters_to_a_search() {
        assert!(contains("Silver: 12 rows WRITTEN", "rows written") && contains("ÄRGER im Netz", "ärger"));
        assert!(contains("anything", "") && !contains("gold", "silver"));
    }

    #[test]
    fn an_attempt_has_lines_of_its_own() {
        let (first, second) = (line(1), Line { attempt: 2, ..line(2) });
        let of = |attempt, text| [&first, &second].map(|line| Wanted::new(None, attempt, text).fits(line));
        assert_eq!((of(None, ""), of(Some(2), ""), of(Some(2), "LINE 1")), ([true; 2], [false, true], [false; 2]));
    }

    #[test]
    fn only_the_newest_stay() {
        let known = joined(None, (1..=400).map(line).collect());
        assert_eq!(known.len(), 400);
        let more = joined(Some(known.clone()), (401..=600).map(line).collect());
        assert_eq!((more.len(), more[0].line, more[LINES_MAX - 1].line), (LINES_MAX, 101, 600));
        assert!(Arc::ptr_eq(&known, &joined(Some(known.clone()), Vec::new())), "nothing new, nothing copied");
    }
}
