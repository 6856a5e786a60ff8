//! How much waits for an actor. The mailbox itself cannot be asked how full it is, so each message that is sent carries a
//! ticket, which ends when the actor takes the message up, or with the mailbox: what is counted are the tickets.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Carried by one message.
#[derive(Debug)]
pub struct Ticket {
    _counted: Arc<()>,
}

/// What waits for one actor. Clones are about the same actor.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Inner>);

/// How much waits beside the mailbox, in a stream that the actor reads.
type Stream = Box<dyn Fn() -> usize + Send + Sync>;

#[derive(Default)]
struct Inner {
    tickets: Arc<()>,
    stream: Mutex<Option<Stream>>,
}

impl Inbox {
    /// A ticket for a message that is sent now: one relaxed increment, and a decrement where it ends.
    pub fn ticket(&self) -> Ticket {
        Ticket { _counted: self.0.tickets.clone() }
    }

    /// What waits in the stream that the actor reads from now on is counted, too.
    pub fn with_stream(&self, waiting: impl Fn() -> usize + Send + Sync + 'static) {
        *self.0.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(waiting));
    }

    /// Messages that were sent and are not taken up.
    pub fn waiting(&self) -> usize {
        let sent = Arc::strong_count(&self.0.tickets).saturating_sub(1);
        let stream = self.0.stream.lock().unwrap_or_else(PoisonError::into_inner);
        sent + stream.as_ref().map_or(0, |waiting| waiting())
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({})", self.waiting())
    }
}
