//! Searches for events: one at a time per user, few at a time of all, each kept for a while for whoever asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::desk::Desk;
use crate::config::Config;
use crate::trace::{Trace, trace};

/// Characters of what is asked for.
pub const ASKED_MAX: usize = 400;
/// Searches at the same time; others wait.
const AT_ONCE: usize = 2;
/// What was found is shown for so long; whoever asks later has it looked for again.
const FRESH: Duration = Duration::from_secs(10);
/// What was found is let go of after this time.
const KEPT: Duration = Duration::from_secs(120);

/// What came of a search; none while it goes on.
pub type Outcome = Option<Result<Arc<Trace>, Arc<str>>>;

struct Search {
    asked: String,
    begun: Instant,
    ended: Arc<Mutex<Option<Instant>>>,
    outcome: watch::Receiver<Outcome>,
    task: AbortHandle,
}

impl Search {
    fn ended(&self) -> Option<Duration> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

/// How a user's search stands.
pub struct Standing {
    pub since: Duration,
    pub outcome: Outcome,
}

/// The searches, by user. Clones share them.
#[derive(Clone)]
pub struct Traces {
    searches: Arc<Mutex<HashMap<String, Search>>>,
    room: Arc<Semaphore>,
}

impl Default for Traces {
    fn default() -> Self {
        Self { searches: Arc::default(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Traces {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Search>) -> T) -> T {
        work(&mut self.searches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The outcome of a user's search, which begins now unless it goes on or has just ended. It ends the user's search
    /// for anything else.
    pub fn ask(&self, desk: &Desk, config: Config, user: &str, asked: &str) -> watch::Receiver<Outcome> {
        self.with(|searches| {
            searches.retain(|_, search| search.ended().is_none_or(|ago| ago < KEPT));
            if let Some(search) = searches.get(user).filter(|search| search.asked == asked)
                && search.ended().is_none_or(|ago| ago < FRESH)
            {
                return search.outcome.clone();
            }
            let (tell, outcome) = watch::channel(None);
            let ended = Arc::default();
            let task = desk.begin(search(config, asked.to_owned(), tell, Arc::clone(&ended), self.room.clone()));
            let new = Search { asked: asked.to_owned(), begun: Instant::now(), ended, outcome: outcome.clone(), task };
            if let Some(before) = searches.insert(user.to_owned(), new) {
                before.task.abort();
            }
            outcome
        })
    }

    /// How a user's search stands; none where it was not asked for, or is too long ago.
    pub fn standing(&self, user: &str, asked: &str) -> Option<Standing> {
        self.with(|searches| {
            let search = searches.get(user).filter(|search| search.asked == asked)?;
            Some(Standing { since: search.begun.elapsed(), outcome: search.outcome.borrow().clone() })
        })
    }
}

async fn search(
    config: Config,
    asked: String,
    tell: watch::Sender<Outcome>,
    ended: Arc<Mutex<Option<Instant>>>,
    room: Arc<Semaphore>,
) {
    // The room is never closed.
    let _turn = room.acquire().await.ok();
    let found = trace(&config, None, &asked).await;
    *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    tell.send_replace(Some(found.map(Arc::new).map_err(|error| format!("{:#}", anyhow::Error::from(error)).into())));
}

/// What to tell whoever waited for a search that another one of theirs has ended.
pub const OVERTAKEN: &str = "another search of yours has ended this one; one goes on at a time";
