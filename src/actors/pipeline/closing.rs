//! How a round ends: by a fault, because somebody changes the table by hand, or because the daemon stops.

use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::super::supervise::End;
use super::{PipelineSupervisor, StopPipeline};
use crate::bronze::BronzeError;

/// Clients that may be left behind before the pipeline stays down: each keeps its threads and its connections.
const LEFT_BEHIND: u32 = 5;
/// How long the group may take to hear that an instance leaves that stops. While the group waits for another member, the
/// broker answers nothing else on the same connection, for as long as a session lasts.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a round ends.
pub(super) enum Fault {
    /// Worth another try.
    Again(String),
    /// Stays down until somebody acts.
    Loud(String),
}

impl From<&BronzeError> for Fault {
    fn from(error: &BronzeError) -> Self {
        if error.is_loud_stop() { Fault::Loud(error.to_string()) } else { Fault::Again(error.to_string()) }
    }
}

impl PipelineSupervisor {
    /// Ends the round: closes the client, drops the actors, and opens again after a pause.
    pub(super) fn fail(&mut self, fault: Fault, ctx: &mut Context<Self>) {
        match (&self.fault, &fault) {
            (None, _) => {}
            // Already closing, but now it is known that another try is no use.
            (Some(Fault::Again(_)), Fault::Loud(_)) => {}
            // Already closing; the first cause is the one to tell.
            (Some(_), _) => return,
        }
        match &fault {
            Fault::Again(error) => {
                tracing::warn!(pipeline = self.setup.pipeline.name, error, "pipeline fails; made anew after a pause");
            }
            Fault::Loud(error) => {
                tracing::error!(pipeline = self.setup.pipeline.name, error, "pipeline stays down until somebody acts");
            }
        }
        let text = match &fault {
            Fault::Again(text) | Fault::Loud(text) => text.clone(),
        };
        self.setup.board.actor_failed(&self.id(), text, matches!(fault, Fault::Loud(_)));
        self.fault = Some(fault);
        self.close(ctx);
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
        let gone = self.setup.io.spawn_blocking(move || client.close());
        ctx.spawn(gone.into_actor(self).map(|missing, supervisor, ctx| match missing.unwrap_or_default() {
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
        let ran = match self.session.take() {
            Some(session) => {
                if let Some(upkeep) = &session.upkeep {
                    upkeep.do_send(End);
                }
                session.realtime.do_send(End);
                session.bronze.do_send(End);
                for running in session.partitions.values() {
                    self.setup.board.revoked(&running.source);
                }
                session.opened.elapsed()
            }
            None => Duration::ZERO,
        };
        let fault = self.fault.take();
        if !self.stopping.is_empty() {
            return self.finish_stop();
        }
        if self.setup.standstill.is_wanted() {
            return self.stand_still();
        }
        match fault {
            Some(Fault::Loud(_)) => self.stopped = true,
            _ => {
                let pause = self.backoff.next(ran).unwrap_or(Duration::from_secs(30));
                ctx.run_later(pause, |supervisor, ctx| supervisor.open(ctx));
            }
        }
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

    /// An instance that stops, and holds nothing any more, waits for the group's answer only so long.
    pub(super) fn bid_farewell(&self, ctx: &mut Context<Self>) {
        if self.stopping.is_empty() || self.session.as_ref().is_some_and(|s| !s.partitions.is_empty()) {
            return;
        }
        ctx.run_later(FAREWELL, |supervisor, _| {
            if !supervisor.stopping.is_empty() {
                tracing::info!(
                    pipeline = supervisor.setup.pipeline.name,
                    "the group does not answer while it waits for another member; left without its answer"
                );
                supervisor.finish_stop();
            }
        });
    }

    pub(super) fn finish_stop(&mut self) {
        self.stopped = true;
        for waiter in self.stopping.drain(..) {
            let _ = waiter.send(self.drained);
        }
    }

    /// A consumer has ended; if nobody has asked it to, or has told why, its reader has failed.
    pub(super) fn missed(&mut self, round: u64, partition: i32, ctx: &mut Context<Self>) {
        let running = self.session.as_ref().filter(|s| s.client.is_some() && s.partitions.contains_key(&partition));
        if self.round == round && running.is_some() {
            let error = format!("the reader of partition {partition} ended by itself");
            self.fail(Fault::Again(error), ctx);
        }
    }
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
                Some(_) => self.close(ctx),
                None => self.stand_still(),
            }
        } else {
            self.setup.standstill.tell(false);
            // What had stopped for good is looked at with new eyes.
            self.stopped = false;
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
