//! The actors of a round, made and watched. On the way to Bronze an end by panic ends the round; on the way to ClickHouse the
//! actor is made anew beside the running stream.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::super::consumer::NewWindows;
use super::super::realtime::{RealtimeWriter, Served, Windows};
use super::super::supervise::{Ended, launch};
use super::super::windows::{Consumer, WindowAggregator};
use super::{Fault, PipelineSupervisor};
use crate::kafka::Source;
use crate::telemetry::ActorId;
use crate::window::Standing;

impl PipelineSupervisor {
    pub(super) fn launch_realtime(&mut self, served: &Arc<Served>, ctx: &mut Context<Self>) -> Addr<RealtimeWriter> {
        self.setup.board.actor_running(&ActorId::new("realtime_writer", self.setup.pipeline.name.as_str()), false);
        let (setup, for_actor) = (self.setup.clone(), served.clone());
        let (realtime, ended) = launch(&Arbiter::current(), move || RealtimeWriter::new(setup, for_actor));
        let round = self.round;
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if let Ok(Ended::Panicked(text)) = how {
                supervisor.realtime_ended(round, &text, ctx);
            }
        }));
        realtime
    }

    /// The realtime writer is made anew and given the windows again; they keep what was not acknowledged.
    fn realtime_ended(&mut self, round: u64, text: &str, ctx: &mut Context<Self>) {
        if self.round != round || self.session.is_none() {
            return;
        }
        let id = ActorId::new("realtime_writer", self.setup.pipeline.name.as_str());
        tracing::error!(pipeline = self.setup.pipeline.name, panic = text, "the realtime writer panicked; made anew");
        self.setup.board.actor_failed(&id, text, false);
        // The windows hold the old writer's address: with it they go, and count again from Bronze.
        let Some(served) = self.session.as_ref().map(|s| s.served.clone()) else { return };
        let realtime = self.launch_realtime(&served, ctx);
        if let Some(session) = &mut self.session {
            session.realtime = realtime;
            let partitions: Vec<i32> = session.partitions.keys().copied().collect();
            for partition in partitions {
                self.relaunch_windows(partition, ctx);
            }
        }
        self.setup.board.actor_running(&id, true);
    }

    /// A child on the way to Bronze: its end by panic ends the round.
    pub(super) fn watch(&self, ended: oneshot::Receiver<Ended>, kind: &'static str, ctx: &mut Context<Self>) {
        let round = self.round;
        let id = ActorId::new(kind, self.setup.pipeline.name.as_str());
        self.setup.board.actor_running(&id, round > 1);
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if supervisor.round == round
                && let Ok(Ended::Panicked(text)) = how
            {
                supervisor.setup.board.actor_failed(&id, text.as_str(), false);
                supervisor.fail(Fault::Again(format!("{kind} panicked: {text}")), ctx);
            }
        }));
    }

    pub(super) fn launch_windows(
        &mut self,
        source: &Arc<Source>,
        start: Option<Standing>,
        ctx: &mut Context<Self>,
    ) -> Option<Addr<WindowAggregator>> {
        let session = self.session.as_ref()?;
        let (windows, ended) = {
            let (setup, served) = (self.setup.clone(), session.served.clone());
            let (source, realtime) = (source.clone(), session.realtime.clone());
            launch(&self.setup.stream_arbiter, move || WindowAggregator::new(setup, served, source, realtime, start))
        };
        session.realtime.do_send(Windows(source.clone(), Some(windows.clone())));
        let (round, partition) = (self.round, source.partition);
        let id = ActorId::new("window_aggregator", source.to_string());
        self.setup.board.actor_running(&id, start.is_none());
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if let Ok(Ended::Panicked(text)) = how
                && supervisor.round == round
            {
                tracing::error!(actor = %id.name, panic = text, "windows panicked; counted again from Bronze");
                supervisor.setup.board.actor_failed(&id, text, false);
                supervisor.relaunch_windows(partition, ctx);
            }
        }));
        Some(windows)
    }

    /// Makes a partition's windows anew beside its running consumer.
    fn relaunch_windows(&mut self, partition: i32, ctx: &mut Context<Self>) {
        let Some(running) = self.session.as_ref().and_then(|s| s.partitions.get(&partition)) else { return };
        let (source, consumer) = (running.source.clone(), running.consumer.clone());
        if let Some(windows) = self.launch_windows(&source, None, ctx) {
            windows.do_send(Consumer(consumer.clone()));
            consumer.do_send(NewWindows(windows));
        }
    }
}
