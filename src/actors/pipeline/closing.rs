//! How a round ends: by a fault, because somebody changes the table by hand, or because the daemon stops.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::super::supervise::{End, GIVE_UP_AFTER, HEALTHY_AFTER, LONGEST_PAUSE};
use super::{PipelineSupervisor, StopPipeline};
use crate::bronze::{BronzeError, Table};
use crate::kafka::Source;

/// Clients that may be left behind before the pipeline stays down: each keeps its threads and its connections.
const LEFT_BEHIND: u32 = 5;
/// How often a pipeline that stays down looks whether somebody has decided what it waits for.
const LOOK: Duration = Duration::from_secs(5);
/// How long the group may take to hear that an instance leaves that stops. While the group waits for another member, the
/// broker answers nothing else on the same connection, for as long as a session lasts.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a round ends.
pub(super) enum Fault {
    /// Nothing has failed: somebody has decided something at another instance, and the table is read anew.
    Anew(String),
    /// Worth another try.
    Again(String),
    /// Stays down until somebody acts.
    Loud(String),
}

impl From<&BronzeError> for Fault {
    fn from(error: &BronzeError) -> Self {
        match error {
            BronzeError::Renewed { .. } | BronzeError::Accepted { .. } => Fault::Anew(error.to_string()),
            error if error.is_loud_stop() => Fault::Loud(error.to_string()),
            error => Fault::Again(error.to_string()),
        }
    }
}

impl PipelineSupervisor {
    /// Ends the round: closes the client, drops the actors, and opens again after a pause.
    pub(super) fn fail(&mut self, fault: Fault, ctx: &mut Context<Self>) {
        match (&self.fault, &fault) {
            (None, _) => {}
            // Already closing, but now it is known that another try is no use.
            (Some(Fault::Again(_) | Fault::Anew(_)), Fault::Loud(_)) => {}
            // Already closing; the first cause is the one to tell.
            (Some(_), _) => return,
        }
        let pipeline = &self.setup.pipeline.name;
        match &fault {
            Fault::Anew(why) => tracing::info!(pipeline, why, "pipeline begins anew"),
            Fault::Again(error) => {
                tracing::warn!(pipeline, error, "pipeline fails; made anew after a pause");
                self.setup.board.actor_failed(&self.id(), error.as_str(), false);
            }
            Fault::Loud(error) => {
                tracing::error!(pipeline, error, "pipeline stays down until somebody acts");
                self.setup.board.actor_failed(&self.id(), error.as_str(), true);
            }
        }
        self.fault = Some(fault);
        self.close(ctx);
    }

    /// An actor on the way to Bronze panicked: worth another try, unless tries have ended so again and again.
    pub(super) fn panicked(&mut self, what: String, ctx: &mut Context<Self>) {
        // Of one round the first counts.
        if self.fault.is_none() {
            if self.session.as_ref().is_some_and(|session| session.opened.elapsed() >= HEALTHY_AFTER) {
                self.panics = 0;
            }
            self.panics += 1;
        }
        let panics = self.panics;
        self.fail(
            if panics > GIVE_UP_AFTER {
                Fault::Loud(format!(
                    "{what}; so ended {panics} tries in a row. Nothing is lost: Bronze goes on at its position when the \
                     daemon is started again. Report it with the log"
                ))
            } else {
                Fault::Again(what)
            },
            ctx,
        );
    }

    /// Closes the client on a thread of its own: closing revokes, and this actor answers the revocation.
    pub(super) fn close(&mut self, ctx: &mut Context<Self>) {
        let Some(client) = self.session.as_mut().and_then(|session| session.client.take()) else {
            if self.session.is_none() {
                self.closed(ctx);
            }
            return;
        };
        client.stop();
        let round = self.round;
        let gone = self.setup.io.spawn_blocking(move || client.close());
        ctx.spawn(gone.into_actor(self).map(move |missing, supervisor, ctx| match missing.unwrap_or_default() {
            // Nobody waited for it.
            _ if supervisor.round != round => {}
            none if none.is_empty() => supervisor.closed(ctx),
            missing => supervisor.left_behind(&missing, ctx),
        }));
    }

    /// Some readers did not end, and their client was left behind for them. It has revoked nothing: that is done here.
    fn left_behind(&mut self, missing: &[i32], ctx: &mut Context<Self>) {
        self.left_behind += 1;
        let (pipeline, clients) = (&self.setup.pipeline.name, self.left_behind);
        tracing::error!(
            pipeline,
            partitions = ?missing,
            clients,
            "readers do not end: their Kafka client is left behind with what it holds; restart the daemon to free it"
        );
        if self.left_behind >= LEFT_BEHIND {
            let error = format!(
                "{clients} Kafka clients were left behind because their readers did not end; restart the daemon, which \
                 goes on at Bronze's position"
            );
            self.setup.board.actor_failed(&self.id(), error.as_str(), true);
            self.fault = Some(Fault::Loud(error));
        }
        let mut partitions = Vec::new();
        for (partition, running) in self.session.iter().flat_map(|session| &session.partitions) {
            if missing.contains(partition) {
                // Its reader does not end it, and nobody waits for it.
                running.consumer.do_send(End);
            }
            partitions.push(*partition);
        }
        // Nobody waits for the answer.
        let (reply, _) = std::sync::mpsc::sync_channel(1);
        self.revoked(partitions, reply, ctx);
        ctx.spawn(async {}.into_actor(self).map(|(), supervisor, ctx| supervisor.closed(ctx)));
    }

    fn closed(&mut self, ctx: &mut Context<Self>) {
        // What the round's actors still say (a writer whose partitions are gone cannot commit) is no news any more, and
        // must not take the place of the cause.
        self.round += 1;
        // What has stopped is this instance's no more, either: it is placed anew, here or elsewhere.
        self.setup.board.forget(&self.setup.pipeline.name);
        let (ran, epoch) = match self.session.take() {
            Some(session) => {
                if let Some(upkeep) = &session.upkeep {
                    upkeep.do_send(End);
                }
                self.setup.board.actor_gone(&self.child("upkeep"));
                session.realtime.do_send(End);
                session.bronze.do_send(End);
                (session.opened.elapsed(), Some(session.served.table.epoch().to_owned()))
            }
            None => (Duration::ZERO, None),
        };
        let fault = self.fault.take();
        if !self.stopping.is_empty() {
            return self.finish_stop();
        }
        if self.setup.standstill.is_wanted() {
            return self.stand_still();
        }
        match fault {
            Some(Fault::Loud(_)) => {
                self.stopped = true;
                self.watch_for_choice(epoch, ctx);
            }
            _ => {
                let pause = self.backoff.next(ran).unwrap_or(LONGEST_PAUSE);
                let round = self.round;
                ctx.run_later(pause, move |supervisor, ctx| {
                    // Else somebody has let it stand still meanwhile, and go on.
                    if supervisor.round == round {
                        supervisor.open(ctx);
                    }
                });
            }
        }
    }

    /// A pipeline that stays down looks now and then whether somebody has decided at another instance what it waits for:
    /// the table has another epoch than `stopped_under` (none: than it has now), with the settings of this configuration.
    fn watch_for_choice(&self, stopped_under: Option<String>, ctx: &mut Context<Self>) {
        let (uri, pipeline) = (self.setup.server.lakehouse.uri.clone(), self.setup.pipeline.clone());
        let look = self.setup.io.spawn(async move { Table::as_it_stands(&uri, &pipeline).await });
        let round = self.round;
        ctx.spawn(look.into_actor(self).map(move |found, supervisor, ctx| {
            if supervisor.round != round || !supervisor.stopped || supervisor.leaving {
                return;
            }
            let waits = match found {
                Ok(Ok(Some((table, start)))) => match stopped_under {
                    Some(before) if matches!(start, Ok(None)) && before != table.epoch() => Waits::No,
                    before => Waits::On(before.or_else(|| Some(table.epoch().to_owned()))),
                },
                // A damaged log, which has no epoch until somebody has repaired it.
                Ok(Err(error)) if error.is_loud_stop() => Waits::On(Some(String::new())),
                // Not known now.
                _ => Waits::On(stopped_under),
            };
            if let Waits::On(before) = waits {
                ctx.run_later(LOOK, move |supervisor, ctx| {
                    if supervisor.round == round && supervisor.stopped {
                        supervisor.watch_for_choice(before, ctx);
                    }
                });
                return;
            }
            tracing::info!(
                pipeline = supervisor.setup.pipeline.name,
                "somebody has decided at another instance; the pipeline begins anew"
            );
            supervisor.stopped = false;
            supervisor.open(ctx);
        }));
    }

    /// Nothing of the round is left: whoever waits may change the table.
    pub(super) fn stand_still(&mut self) {
        tracing::info!(
            pipeline = self.setup.pipeline.name,
            "the stream stands still while its table is changed by hand"
        );
        // What has stopped, too: it is placed anew.
        self.setup.board.forget(&self.setup.pipeline.name);
        self.setup.standstill.tell(true);
    }

    /// Whether the session is being closed and holds nothing any more: only the group's answer is missing.
    fn has_left(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.client.is_none() && s.partitions.is_empty())
    }

    /// An instance that stops or is to stand still, and holds nothing any more, waits for the group's answer only so long.
    /// Its client goes on leaving by itself; one that comes under the same name fences it.
    pub(super) fn bid_farewell(&self, ctx: &mut Context<Self>) {
        let waited_for = !self.stopping.is_empty() || self.setup.standstill.is_wanted();
        if !waited_for || !self.has_left() {
            return;
        }
        let round = self.round;
        ctx.run_later(FAREWELL, move |supervisor, ctx| {
            if supervisor.round != round || !supervisor.has_left() {
                return;
            }
            tracing::info!(
                pipeline = supervisor.setup.pipeline.name,
                "the group does not answer while it waits for another member; left without its answer"
            );
            supervisor.closed(ctx);
        });
    }

    pub(super) fn finish_stop(&mut self) {
        self.stopped = true;
        for waiter in self.stopping.drain(..) {
            let _ = waiter.send(self.drained);
        }
    }

    /// A consumer has ended; if nobody has asked it to, or has told why, its reader has failed.
    pub(super) fn missed(&mut self, round: u64, source: &Arc<Source>, ctx: &mut Context<Self>) {
        let missed = self.session.as_ref().is_some_and(|s| s.client.is_some()) && self.runs(source);
        if self.round == round && missed {
            let error = format!("the reader of partition {} ended by itself", source.partition);
            self.fail(Fault::Again(error), ctx);
        }
    }
}

/// Whether a pipeline that stays down waits on, and the epoch that it has stopped under, where it is known.
enum Waits {
    On(Option<String>),
    No,
}

/// Somebody is about to change the table by hand, or has done it.
pub(super) struct StandStill(pub(super) bool);

impl StreamHandler<StandStill> for PipelineSupervisor {
    fn handle(&mut self, StandStill(wanted): StandStill, ctx: &mut Context<Self>) {
        if self.leaving {
            return;
        }
        if wanted {
            match self.session {
                // Answered when it is closed: all partitions leave drained.
                Some(_) => {
                    self.close(ctx);
                    self.bid_farewell(ctx);
                }
                None => self.stand_still(),
            }
        } else {
            self.setup.standstill.tell(false);
            // What had stopped for good is looked at with new eyes.
            self.stopped = false;
            self.panics = 0;
            if self.session.is_none() {
                self.open(ctx);
            }
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<StopPipeline> for PipelineSupervisor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: StopPipeline, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, told) = oneshot::channel();
        self.leaving = true;
        self.stopping.push(sender);
        if self.session.is_some() {
            self.close(ctx);
            self.bid_farewell(ctx);
        } else {
            self.finish_stop();
        }
        Box::pin(async move {
            // Dropped only with the actor, undrained.
            told.await.unwrap_or(false)
        })
    }
}
