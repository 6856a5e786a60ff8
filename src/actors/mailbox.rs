//! Addresses whose messages are counted from the moment they are sent until the actor takes them up.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use tokio::sync::mpsc;

use crate::telemetry::{Inbox, Ticket};

/// A message on its way.
pub struct Mail<M> {
    message: M,
    _ticket: Ticket,
}

impl<M> Mail<M> {
    /// The message; from here on it waits no longer.
    pub fn open(self) -> M {
        self.message
    }
}

impl<M: Message> Message for Mail<M> {
    type Result = M::Result;
}

/// An actor's address, as others have it.
pub struct Mailbox<A: Actor> {
    address: Addr<A>,
    inbox: Inbox,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), inbox: self.inbox.clone() }
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    pub fn new(address: Addr<A>, inbox: Inbox) -> Self {
        Self { address, inbox }
    }

    /// What waits for the actor.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    fn mail<M>(&self, message: M) -> Mail<M> {
        Mail { message, _ticket: self.inbox.ticket() }
    }

    /// Sends a message and waits for what the actor answers.
    pub fn send<M>(&self, message: M) -> Request<A, Mail<M>>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<Mail<M>>,
        A::Context: ToEnvelope<A, Mail<M>>,
    {
        self.address.send(self.mail(message))
    }

    /// Sends a message that nobody waits for.
    pub fn do_send<M>(&self, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<Mail<M>>,
        A::Context: ToEnvelope<A, Mail<M>>,
    {
        self.address.do_send(self.mail(message));
    }
}

/// Counts what waits in a channel whose other end the actor reads with its mail.
pub fn count_channel<T: Send + 'static>(inbox: &Inbox, sender: &mpsc::Sender<T>) {
    // Weak: whether the channel is closed is not for those who count to say.
    let sender = sender.downgrade();
    inbox.with_stream(move || sender.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity()));
}

/// Lets an actor take messages that it handles out of [`Mail`].
macro_rules! takes_mail {
    ($actor:ty: $($message:ty),+ $(,)?) => {
        $(impl actix::Handler<$crate::actors::mailbox::Mail<$message>> for $actor {
            type Result = <$actor as actix::Handler<$message>>::Result;

            fn handle(
                &mut self,
                mail: $crate::actors::mailbox::Mail<$message>,
                ctx: &mut actix::Context<Self>,
            ) -> Self::Result {
                actix::Handler::<$message>::handle(self, mail.open(), ctx)
            }
        })+
    };
}
pub(super) use takes_mail;

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::supervise::{End, launch};
    use super::*;

    /// Takes no message up while it waits for the one that it has.
    struct Slow;

    impl Actor for Slow {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Work(oneshot::Receiver<()>);

    impl Handler<Work> for Slow {
        type Result = AtomicResponse<Self, ()>;

        fn handle(&mut self, Work(done): Work, _: &mut Context<Self>) -> Self::Result {
            AtomicResponse::new(Box::pin(async move { drop(done.await) }.into_actor(self)))
        }
    }

    impl Handler<End> for Slow {
        type Result = ();

        fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
            ctx.stop();
        }
    }

    takes_mail!(Slow: Work, End);

    #[test]
    fn what_waits_is_counted_until_it_is_taken_up_or_its_actor_ends() {
        System::new().block_on(async {
            let (slow, ended) = launch(&Arbiter::current(), |_| Slow);
            let inbox = slow.inbox().clone();
            assert_eq!(inbox.waiting(), 0);
            let work = |slow: &Mailbox<Slow>| {
                let (done, doing) = oneshot::channel();
                (done, slow.send(Work(doing)))
            };
            let ((done, first), (also_done, second), (last_done, third)) = (work(&slow), work(&slow), work(&slow));
            assert_eq!(inbox.waiting(), 3, "all three are sent, and the actor has not run yet");
            inbox.with_stream(|| 4);
            assert_eq!(inbox.waiting(), 7);
            done.send(()).expect("it waits for this");
            first.await.expect("done");
            // The second is in hand or waits; the third waits behind it.
            assert!((5..=6).contains(&inbox.waiting()), "{}", inbox.waiting());
            drop((also_done, second, last_done));
            third.await.expect("a sender that is gone ends the work");
            assert_eq!(inbox.waiting(), 4, "nothing is in the mailbox any more");
            slow.do_send(End);
            ended.await.expect("told");
            slow.do_send(End);
            assert_eq!(inbox.waiting(), 4, "what is sent to nobody does not wait");
        });
    }
}
