//! The actors of a round, made and watched. On the way to Bronze an end by panic ends the round; on the way to ClickHouse the
//! actor is made anew beside the running stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::super::consumer::NewWindows;
use super::super::mailbox::Mailbox;
use super::super::realtime::{RealtimeWriter, Served, Windows};
use super::super::supervise::{Ended, LONGEST_PAUSE, launch};
use super::super::upkeep::Upkeep;
use super::super::windows::{Consumer, WindowAggregator};
use super::PipelineSupervisor;
use crate::kafka::Source;
use crate::telemetry::{ActorId, Inbox};
use crate::window::Standing;

/// How long the upkeep of the tables rests after a panic.
const UPKEEP_PAUSE: Duration = Duration::from_secs(10);

impl PipelineSupervisor {
    /// What the board calls a child that the pipeline has once.
    pub(super) fn child(&self, kind: &'static str) -> ActorId {
        ActorId::new(kind, self.setup.pipeline.name.as_str())
    }

    pub(super) fn launch_realtime(
        &mut self,
        served: &Arc<Served>,
        restart: bool,
        ctx: &mut Context<Self>,
    ) -> Mailbox<RealtimeWriter> {
        let (setup, for_actor) = (self.setup.clone(), served.clone());
        let (realtime, ended) = launch(&Arbiter::current(), move |_| RealtimeWriter::new(setup, for_actor));
        let id = self.child("realtime_writer");
        self.setup.board.actor_lives(&id, realtime.inbox());
        self.setup.board.actor_running(&id, restart);
        let round = self.round;
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if let Ok(Ended::Panicked(text)) = how {
                supervisor.realtime_ended(round, &text, ctx);
            }
        }));
        realtime
    }

    /// How long what panicked on the way to ClickHouse rests. It is never given up: Bronze goes on meanwhile.
    fn pause_beside(&mut self) -> Duration {
        let (backoff, made) = &mut self.beside;
        let pause = backoff.next(made.elapsed()).unwrap_or(LONGEST_PAUSE);
        *made = Instant::now() + pause;
        pause
    }

    /// The realtime writer is made anew after a pause and given the windows again; they keep what was not acknowledged.
    fn realtime_ended(&mut self, round: u64, text: &str, ctx: &mut Context<Self>) {
        if self.round != round || self.session.is_none() {
            return;
        }
        let pause = self.pause_beside();
        tracing::error!(
            pipeline = self.setup.pipeline.name,
            panic = text,
            ?pause,
            "the realtime writer panicked; made anew after a pause"
        );
        self.setup.board.actor_failed(&self.child("realtime_writer"), text, false);
        ctx.run_later(pause, move |supervisor, ctx| supervisor.realtime_anew(round, ctx));
    }

    fn realtime_anew(&mut self, round: u64, ctx: &mut Context<Self>) {
        if self.round != round {
            return;
        }
        // The windows hold the old writer's address: with it they go, and count again from Bronze.
        let Some(served) = self.session.as_ref().map(|s| s.served.clone()) else { return };
        let realtime = self.launch_realtime(&served, true, ctx);
        if let Some(session) = &mut self.session {
            session.realtime = realtime;
            let partitions: Vec<i32> = session.partitions.keys().copied().collect();
            for partition in partitions {
                self.relaunch_windows(partition, ctx);
            }
        }
    }

    /// A child on the way to Bronze: its end by panic ends the round.
    pub(super) fn watch(
        &self,
        inbox: &Inbox,
        ended: oneshot::Receiver<Ended>,
        kind: &'static str,
        ctx: &mut Context<Self>,
    ) {
        let round = self.round;
        let id = self.child(kind);
        self.setup.board.actor_lives(&id, inbox);
        self.setup.board.actor_running(&id, round > 1);
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if supervisor.round == round
                && let Ok(Ended::Panicked(text)) = how
            {
                supervisor.setup.board.actor_failed(&id, text.as_str(), false);
                supervisor.panicked(format!("{kind} panicked: {text}"), ctx);
            }
        }));
    }

    pub(super) fn launch_windows(
        &mut self,
        source: &Arc<Source>,
        start: Option<Standing>,
        ctx: &mut Context<Self>,
    ) -> Option<Mailbox<WindowAggregator>> {
        let session = self.session.as_ref()?;
        let (windows, ended) = {
            let (setup, served) = (self.setup.clone(), session.served.clone());
            let (source, realtime) = (source.clone(), session.realtime.clone());
            launch(&self.setup.stream_arbiter, move |inbox| {
                WindowAggregator::new(setup, served, source, inbox, realtime, start)
            })
        };
        session.realtime.do_send(Windows(source.clone(), Some(windows.clone())));
        let (round, source) = (self.round, source.clone());
        let id = ActorId::new("window_aggregator", source.to_string());
        self.setup.board.actor_lives(&id, windows.inbox());
        self.setup.board.actor_running(&id, start.is_none());
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if let Ok(Ended::Panicked(text)) = how
                && supervisor.round == round
                && supervisor.runs(&source)
            {
                let pause = supervisor.pause_beside();
                tracing::error!(
                    actor = %id.name,
                    panic = text,
                    ?pause,
                    "windows panicked; counted again from Bronze after a pause"
                );
                supervisor.setup.board.actor_failed(&id, text, false);
                ctx.run_later(pause, move |supervisor, ctx| {
                    if supervisor.round == round && supervisor.runs(&source) {
                        supervisor.relaunch_windows(source.partition, ctx);
                    }
                });
            }
        }));
        Some(windows)
    }

    /// Whether a partition is this instance's.
    pub(super) fn holds(&self, partition: i32) -> bool {
        self.session.as_ref().is_some_and(|session| session.partitions.contains_key(&partition))
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

    /// Has somebody look after the pipeline's tables, unless somebody does; who does is made anew after a panic.
    pub(super) fn launch_upkeep(&mut self, ctx: &mut Context<Self>) {
        let Some(session) = self.session.as_mut().filter(|session| session.upkeep.is_none()) else { return };
        let (setup, served, generation) = (self.setup.clone(), session.served.clone(), session.generation);
        let (upkeep, ended) = launch(&Arbiter::current(), move |_| Upkeep::new(setup, served, generation));
        let inbox = upkeep.inbox().clone();
        session.upkeep = Some(upkeep);
        let (round, id) = (self.round, self.child("upkeep"));
        self.setup.board.actor_lives(&id, &inbox);
        self.setup.board.actor_running(&id, false);
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            let Ok(Ended::Panicked(text)) = how else { return };
            let Some(session) = supervisor.session.as_mut().filter(|_| supervisor.round == round) else { return };
            if session.upkeep.take().is_none() {
                return; // it was asked to end
            }
            tracing::error!(pipeline = %id.name, panic = text, "looking after the tables panicked; made anew after a pause");
            supervisor.setup.board.actor_failed(&id, text, false);
            ctx.run_later(UPKEEP_PAUSE, move |supervisor, ctx| {
                if supervisor.round == round && supervisor.holds(0) {
                    supervisor.launch_upkeep(ctx);
                }
            });
        }));
    }
}
