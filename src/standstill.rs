//! Letting a pipeline's stream stand still for a moment: somebody is about to change its table by hand. Its supervisor
//! drains and closes the round, says that it stands, and opens anew when it is let go: also where it had stopped for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// One pipeline's. Clones share one state.
#[derive(Debug, Clone)]
pub struct Standstill {
    wanted: Arc<watch::Sender<bool>>,
    stands: Arc<watch::Sender<bool>>,
    /// One change at a time.
    turn: Arc<Mutex<()>>,
}

/// The pipelines of a daemon, by name.
pub type Standstills = Arc<HashMap<String, Standstill>>;

/// While it lives, the stream stands.
#[derive(Debug)]
pub struct Still {
    wanted: Arc<watch::Sender<bool>>,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Still {
    fn drop(&mut self) {
        self.wanted.send_replace(false);
    }
}

impl Default for Standstill {
    fn default() -> Self {
        Self {
            wanted: Arc::new(watch::channel(false).0),
            stands: Arc::new(watch::channel(false).0),
            turn: Arc::default(),
        }
    }
}

impl Standstill {
    /// Waits until the stream stands; none where it does not within `limit`, and then it goes on.
    pub async fn stand(&self, limit: Duration) -> Option<Still> {
        let turn = tokio::time::timeout(limit, self.turn.clone().lock_owned()).await.ok()?;
        let mut stands = self.stands.subscribe();
        self.wanted.send_replace(true);
        let still = Still { wanted: self.wanted.clone(), _turn: turn };
        let stood = tokio::time::timeout(limit, stands.wait_for(|stands| *stands)).await;
        matches!(stood, Ok(Ok(_))).then_some(still)
    }

    /// For the supervisor: whether it is to stand, and each change of it.
    pub fn wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// For the supervisor: whether it is to stand now.
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// For the supervisor: whether it stands.
    pub fn tell(&self, stands: bool) {
        self.stands.send_replace(stands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_stream_stands_until_it_is_let_go() {
        let standstill = Standstill::default();
        let (supervisor, mut wanted) = (standstill.clone(), standstill.wanted());
        let supervising = tokio::spawn(async move {
            while wanted.changed().await.is_ok() {
                let now = *wanted.borrow_and_update();
                supervisor.tell(now);
                if !now {
                    return;
                }
            }
        });
        let still = standstill.stand(Duration::from_secs(10)).await.expect("it stands");
        assert!(standstill.is_wanted());
        drop(still);
        supervising.await.unwrap();
        assert!(!standstill.is_wanted());
    }

    #[tokio::test]
    async fn a_stream_that_does_not_stand_goes_on() {
        let standstill = Standstill::default();
        assert!(standstill.stand(Duration::from_millis(10)).await.is_none());
        assert!(!standstill.is_wanted());
    }
}
