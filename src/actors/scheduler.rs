//! Starts the batch of each pipeline when its slot comes or somebody asks, one run per pipeline at a time among all
//! daemons that share a history. One scheduler a daemon.
//!
//! It looks into the history twice a second: for a slot that is due, for a run that waits. Runs go on by themselves,
//! their tasks on the batch threads, their leases on the I/O threads; what the scheduler forgets when it is made anew,
//! the history tells it. Where the history is away, no run starts and the stream does not notice.
//!
//! Here is the actor; `desk` is one look, `line` one pipeline's runs, `told` what is said of them.

mod desk;
mod line;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use self::desk::Desk;
use super::mailbox::takes_mail;
use super::supervise::{Backoff, Ended, FIRST_PAUSE, HEALTHY_AFTER, LONGEST_PAUSE, launch};
use crate::batch::Lake;
use crate::batch::run::Work;
use crate::config::{Pipeline, Server};
use crate::failpoint;
use crate::telemetry::{ActorId, Board};

/// How often the history is looked at, and how often when it is away.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_AWAY: Duration = Duration::from_secs(5);

/// What the scheduler is given.
pub struct Setup {
    pub server: Arc<Server>,
    /// The lakehouse that the tasks work on; none where it could not be set up, which each task says.
    pub lake: Option<Lake>,
    /// Each with what its tasks do.
    pub pipelines: Vec<(Arc<Pipeline>, Work)>,
    pub board: Board,
    /// Where the history is read and leases are kept.
    pub io: Handle,
    /// Where tasks run.
    pub batch: Handle,
    /// This daemon's lasting name.
    pub instance: String,
    /// True once the daemon stops: runs end between two steps.
    pub leaving: watch::Receiver<bool>,
}

/// Ends once no run is under way; runs see by themselves that the daemon stops.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopScheduler;

/// Keeps a scheduler alive until the daemon stops: one that panicked is made anew, after a pause. Returns when no run is
/// under way.
pub async fn keep(setup: Arc<Setup>) {
    let id = ActorId::new("scheduler", "batch");
    // It never gives up: runs that are due are seen when it is well again.
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, None, HEALTHY_AFTER);
    let mut leaving = setup.leaving.clone();
    let mut restart = false;
    loop {
        let (made, started) = (setup.clone(), Instant::now());
        setup.board.actor_running(&id, restart);
        let (scheduler, ended) = launch(&Arbiter::current(), move |_| Scheduler::new(made));
        setup.board.actor_lives(&id, scheduler.inbox());
        let how = tokio::select! {
            how = ended => how,
            _ = leaving.wait_for(|leaving| *leaving) => {
                // An error means that it has ended by itself meanwhile.
                let _ = scheduler.send(StopScheduler).await;
                return;
            }
        };
        let Ok(Ended::Panicked(text)) = how else { return };
        tracing::error!(panic = text, "the scheduler panicked; it is made anew");
        setup.board.actor_failed(&id, text, false);
        restart = true;
        tokio::select! {
            () = tokio::time::sleep(backoff.next(started.elapsed()).unwrap_or(LONGEST_PAUSE)) => {}
            _ = leaving.wait_for(|leaving| *leaving) => return,
        }
    }
}

/// See the file's head.
pub struct Scheduler {
    setup: Arc<Setup>,
    /// None while a look is under way.
    desk: Option<Desk>,
    stopping: Option<oneshot::Sender<()>>,
}

impl Scheduler {
    pub fn new(setup: Arc<Setup>) -> Self {
        let desk = Desk::new(&setup);
        Self { setup, desk: Some(desk), stopping: None }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        failpoint::hit("actor.scheduler");
        let Some(mut desk) = self.desk.take() else { return };
        let work = self.setup.io.spawn(async move {
            desk.look().await;
            desk
        });
        ctx.spawn(work.into_actor(self).map(|looked, scheduler, ctx| match looked {
            Ok(desk) => {
                let pause = if desk.history.is_some() { LOOK } else { LOOK_AWAY };
                scheduler.desk = Some(desk);
                if scheduler.stopping.is_some() {
                    scheduler.leave(ctx);
                } else {
                    ctx.run_later(pause, |scheduler, ctx| scheduler.look(ctx));
                }
            }
            // As if it had happened here: the supervisor makes a scheduler anew.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => ctx.stop(),
            },
        }));
    }

    /// Waits for the runs that are under way, says that the daemon is gone, and ends.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        let Some(desk) = self.desk.take() else { return };
        let work = self.setup.io.spawn(desk.leave());
        ctx.spawn(work.into_actor(self).map(|_, scheduler, ctx| {
            if let Some(tell) = scheduler.stopping.take() {
                // Nobody waits for it at the deadline.
                let _ = tell.send(());
            }
            ctx.stop();
        }));
    }
}

takes_mail!(Scheduler: StopScheduler);

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Handler<StopScheduler> for Scheduler {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopScheduler, ctx: &mut Context<Self>) -> Self::Result {
        let (tell, told) = oneshot::channel();
        self.stopping = Some(tell);
        // Else the look that is under way leaves when it is over.
        self.leave(ctx);
        Box::pin(async move {
            let _ = told.await;
        })
    }
}
