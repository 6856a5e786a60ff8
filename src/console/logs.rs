//! The newest lines of the logs that are looked at: a look each second reads what came since the one before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::history::{History, Line};

/// Lines of a log that a live page shows.
pub const LINES_MAX: usize = 500;
/// Logs that are kept, and for how long without a look.
const LOGS_MAX: usize = 32;
const UNUSED_MAX: Duration = Duration::from_secs(60);

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
    fn only_the_newest_stay() {
        let known = joined(None, (1..=400).map(line).collect());
        assert_eq!(known.len(), 400);
        let more = joined(Some(known.clone()), (401..=600).map(line).collect());
        assert_eq!((more.len(), more[0].line, more[LINES_MAX - 1].line), (LINES_MAX, 101, 600));
        assert!(Arc::ptr_eq(&known, &joined(Some(known.clone()), Vec::new())), "nothing new, nothing copied");
    }
}
