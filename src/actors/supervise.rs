//! What actix's own supervisor does not do: tell a panic, wait before the next try, give up loudly. An actor that failed
//! is never reused; it is made anew and recovers from what is durable.

use std::time::Duration;

use actix::dev::channel;
use actix::{Actor, Addr, Context, Message};
use actix_rt::ArbiterHandle;
use rand::RngExt;
use tokio::sync::oneshot;

use super::mailbox::Mailbox;
use crate::telemetry::Inbox;

/// Asks an actor to end at once. By its timers it would otherwise go on when nobody needs it any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct End;

/// How an actor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It stopped by itself.
    Stopped,
    /// It panicked, with this message.
    Panicked(String),
}

/// Messages that an actor's mailbox takes before senders wait. Data is bounded by awaited replies, not by this.
const MAILBOX: usize = 16;

/// Runs an actor on an arbiter, made with what counts its mail; the receiver tells how it ended.
pub fn launch<A>(
    arbiter: &ArbiterHandle,
    make: impl FnOnce(Inbox) -> A + Send + 'static,
) -> (Mailbox<A>, oneshot::Receiver<Ended>)
where
    A: Actor<Context = Context<A>>,
{
    let (sender, receiver) = channel::channel(MAILBOX);
    let (ended, told) = oneshot::channel();
    let inbox = Inbox::default();
    let for_actor = inbox.clone();
    arbiter.spawn_fn(move || {
        let run = actix_rt::spawn(Context::with_receiver(receiver).into_future(make(for_actor)));
        actix_rt::spawn(async move {
            let how = match run.await {
                Ok(_) => Ended::Stopped,
                Err(error) => Ended::Panicked(panic_text(error)),
            };
            // Nobody listens when the system is stopping.
            let _ = ended.send(how);
        });
    });
    (Mailbox::new(Addr::new(sender), inbox), told)
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".into()),
        Err(error) => error.to_string(),
    }
}

/// Pauses before what failed is made anew, how often in a row what panics is, and how long it must run to count as recovered.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
pub const GIVE_UP_AFTER: u32 = 10;
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Exponential backoff with jitter, that gives up when failures come too thick. Time is an argument.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    first: Duration,
    longest: Duration,
    give_up_after: Option<u32>,
    /// A run that lasted this long counts as a recovery.
    healthy_after: Duration,
}

impl Backoff {
    /// - `first`, `longest`: bounds of the wait.
    /// - `give_up_after`: failures in a row before it gives up; `None` for never.
    /// - `healthy_after`: how long a run must last to wipe the failures before it.
    pub fn new(first: Duration, longest: Duration, give_up_after: Option<u32>, healthy_after: Duration) -> Self {
        Self { failures: 0, first, longest, give_up_after, healthy_after }
    }

    /// The wait before the next try after a run of length `ran`; `None` to give up.
    pub fn next(&mut self, ran: Duration) -> Option<Duration> {
        if ran >= self.healthy_after {
            self.failures = 0;
        }
        self.failures += 1;
        if self.give_up_after.is_some_and(|most| self.failures > most) {
            return None;
        }
        let whole = self.first.saturating_mul(1 << (self.failures - 1).min(20)).min(self.longest);
        // Between half and all of it, so that instances that failed together do not come back together.
        Some(whole.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::takes_mail;
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_stay_bounded_and_end() {
        let mut backoff = Backoff::new(S, S * 8, Some(6), S * 60);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(Duration::ZERO)).take(20).collect();
        assert_eq!(waits.len(), 6);
        for (i, wait) in waits.iter().enumerate() {
            let whole = S * (1 << i).min(8);
            assert!(*wait >= whole / 2 && *wait <= whole, "wait {i}: {wait:?}");
        }
    }

    #[test]
    fn a_long_run_is_a_recovery() {
        let mut backoff = Backoff::new(S, S * 8, Some(1), S * 60);
        for _ in 0..10 {
            assert!(backoff.next(S * 60).is_some());
        }
        assert!(backoff.next(S).is_none());
    }

    struct Fragile;
    impl Actor for Fragile {
        type Context = Context<Self>;
    }
    #[derive(actix::Message)]
    #[rtype(result = "()")]
    struct Break(bool);
    impl actix::Handler<Break> for Fragile {
        type Result = ();
        fn handle(&mut self, Break(loudly): Break, ctx: &mut Context<Self>) {
            assert!(!loudly, "broken on purpose");
            actix::ActorContext::stop(ctx);
        }
    }

    takes_mail!(Fragile: Break);

    #[test]
    fn a_panic_is_told_from_a_stop() {
        let system = actix::System::new();
        system.block_on(async {
            let arbiter = actix_rt::Arbiter::current();
            let (quiet, ended) = launch(&arbiter, |_| Fragile);
            quiet.do_send(Break(false));
            assert_eq!(ended.await, Ok(Ended::Stopped));
            let (loud, ended) = launch(&arbiter, |_| Fragile);
            assert!(loud.send(Break(true)).await.is_err());
            assert_eq!(ended.await, Ok(Ended::Panicked("broken on purpose".into())));
        });
    }
}
