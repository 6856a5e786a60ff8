//! Who is signed in. In memory alone: a daemon that starts anew asks everybody to sign in again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::secret;

/// Sessions at the same time; a further one ends the one that was idle longest.
const SESSIONS_MAX: usize = 1_000;
/// A session ends after this time even if it is in use.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A person at a browser.
#[derive(Debug, Clone)]
pub struct Session {
    pub user: String,
    /// Must come with everything that changes something.
    pub csrf: String,
    begun: Instant,
    seen: Instant,
}

/// All sessions, by the digest of their id.
#[derive(Debug)]
pub struct Sessions {
    idle: Duration,
    held: Mutex<HashMap<[u8; 32], Session>>,
}

impl Sessions {
    pub fn new(idle: Duration) -> Self {
        Self { idle, held: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<[u8; 32], Session>) -> T) -> T {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a session under an id that nobody knew before; the id.
    pub fn begin(&self, user: &str, now: Instant) -> String {
        let id = secret::new_token();
        let session = Session { user: user.to_owned(), csrf: secret::new_token(), begun: now, seen: now };
        self.with(|held| {
            held.retain(|_, session| self.lives(session, now));
            if held.len() >= SESSIONS_MAX
                && let Some(idlest) = held.iter().min_by_key(|(_, s)| s.seen).map(|(key, _)| *key)
            {
                held.remove(&idlest);
            }
            held.insert(secret::digest(&id), session);
        });
        id
    }

    /// The session of an id, which is in use now.
    pub fn find(&self, id: &str, now: Instant) -> Option<Session> {
        let key = secret::digest(id);
        self.with(|held| {
            let session = held.get_mut(&key)?;
            if !self.lives(session, now) {
                held.remove(&key);
                return None;
            }
            session.seen = now;
            Some(session.clone())
        })
    }

    /// Whether a session is still there; does not count as use.
    pub fn holds(&self, key: &[u8; 32], now: Instant) -> bool {
        self.with(|held| held.get(key).is_some_and(|session| self.lives(session, now)))
    }

    pub fn end(&self, id: &str) {
        self.with(|held| held.remove(&secret::digest(id)));
    }

    /// Ends all sessions of a user, but for one.
    pub fn end_all(&self, user: &str, but: Option<&str>) {
        let but = but.map(secret::digest);
        self.with(|held| held.retain(|key, session| session.user != user || Some(*key) == but));
    }

    fn lives(&self, session: &Session, now: Instant) -> bool {
        now.saturating_duration_since(session.seen) < self.idle
            && now.saturating_duration_since(session.begun) < LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_idle_old_or_told() {
        let (idle, now) = (Duration::from_secs(60), Instant::now());
        let sessions = Sessions::new(idle);
        let id = sessions.begin("ada", now);
        assert_eq!(sessions.find(&id, now + idle / 2).unwrap().user, "ada");
        assert!(sessions.find(&id, now + idle).is_some(), "it was used in between");
        assert!(sessions.find(&id, now + idle * 3).is_none());
        let id = sessions.begin("ada", now);
        sessions.end(&id);
        assert!(sessions.find(&id, now).is_none());
        assert!(sessions.find("an id of somebody's own", now).is_none());
    }

    #[test]
    fn a_user_can_be_signed_out_everywhere_else() {
        let now = Instant::now();
        let sessions = Sessions::new(Duration::from_secs(60));
        let (mine, other, hers) = (sessions.begin("ada", now), sessions.begin("ada", now), sessions.begin("eve", now));
        sessions.end_all("ada", Some(&mine));
        let there = |id: &str| sessions.find(id, now).is_some();
        assert_eq!((there(&mine), there(&other), there(&hers)), (true, false, true));
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let sessions = Sessions::new(Duration::from_secs(60));
        let first = sessions.begin("ada", now);
        for _ in 0..SESSIONS_MAX {
            sessions.begin("ada", now + Duration::from_secs(1));
        }
        assert!(sessions.find(&first, now + Duration::from_secs(1)).is_none());
    }
}
