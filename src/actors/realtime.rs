//! Serves what the windows have counted: every `realtime.flush_interval` the changed totals of all partitions go to
//! ClickHouse in one insert per aggregate, in the order that recovery relies on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::mailbox::{Mailbox, takes_mail};
use super::setup::Setup;
use super::supervise::End;
use super::windows::{Acknowledge, DropStates, Given, Snapshot, WindowAggregator};
use crate::bronze::Table;
use crate::failpoint;
use crate::kafka::{Source, now_micros};
use crate::serving::{self, Error, ErrorKind, PartitionTotals, Prepared, Refused};
use crate::telemetry::{SinkCondition, names};
use crate::window::AggregatePlan;

/// The aggregates in force, the server that serves them, and the Bronze table that they are counted from.
pub struct Served {
    prepared: Prepared<serving::Client>,
    pub table: Table,
    /// Bytes of totals that a recount of one partition may hold, nearly.
    pub recount_bytes: usize,
}

impl Served {
    pub fn new(setup: &Setup, table: Table, plans: Vec<Arc<AggregatePlan>>) -> Self {
        let prepared = Prepared::new(setup.clickhouse.clone(), setup.pipeline.name.clone(), plans);
        Self { prepared, table, recount_bytes: setup.budget.recount }
    }

    /// The aggregates, in the pipeline's order.
    pub fn plans(&self) -> &[Arc<AggregatePlan>] {
        &self.prepared.plans
    }

    /// The client, once the tables are there.
    pub async fn client(&self) -> Result<&serving::Client, Error> {
        self.prepared.store().await
    }

    /// See [`Prepared::look_again`].
    pub async fn look_again(&self) -> Result<(&serving::Client, Refused), Error> {
        self.prepared.look_again().await
    }
}

/// A partition's windows come or go.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Windows(pub Arc<Source>, pub Option<Mailbox<WindowAggregator>>);

/// Serves what there is now; answers whether ClickHouse took it.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct ServeNow;

/// See the file's head.
pub struct RealtimeWriter {
    setup: Arc<Setup>,
    served: Arc<Served>,
    windows: HashMap<Arc<Source>, Mailbox<WindowAggregator>>,
    serving: bool,
    /// Whom to tell when the next serving has ended.
    waiting: Vec<oneshot::Sender<bool>>,
    failures: u32,
    refused: bool,
    /// The next serving, when none is under way.
    timer: Option<SpawnHandle>,
    told: Instant,
    rows_since_told: u64,
    /// When the tables were last looked at.
    looked: Instant,
}

/// How often to see that no other daemon has made a table anew that was dropped.
const LOOK: Duration = Duration::from_secs(10);

impl RealtimeWriter {
    pub fn new(setup: Arc<Setup>, served: Arc<Served>) -> Self {
        Self {
            setup,
            served,
            windows: HashMap::new(),
            serving: false,
            waiting: Vec::new(),
            failures: 0,
            refused: false,
            timer: None,
            told: Instant::now(),
            rows_since_told: 0,
            looked: Instant::now(),
        }
    }

    fn serve(&mut self, ctx: &mut Context<Self>) {
        if self.serving {
            return;
        }
        failpoint::hit("actor.realtime_writer");
        self.serving = true;
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let look = self.looked.elapsed() >= LOOK;
        if look {
            self.looked = Instant::now();
        }
        let windows: Vec<_> = self.windows.iter().map(|(source, addr)| (source.clone(), addr.clone())).collect();
        let (served, io) = (self.served.clone(), self.setup.io.clone());
        let work = async move {
            let mut totals = Vec::new();
            let mut givers = Vec::new();
            for (source, addr) in windows {
                // An actor that has gone is made anew and counts again from Bronze.
                if let Ok(Given { totals: given, oldest }) = addr.send(Snapshot).await {
                    totals.push(PartitionTotals::new(source, given));
                    givers.push((addr, oldest));
                }
            }
            let started = Instant::now();
            let (totals, outcome, refused) = io
                .spawn(async move {
                    let outcome = serving::serve(&served.prepared, &mut totals, look).await;
                    (totals, outcome, served.prepared.refused().await)
                })
                .await
                .unwrap_or_else(|_| (Vec::new(), Ok(0), None));
            (totals.into_iter().zip(givers).collect(), outcome, refused, started.elapsed())
        };
        ctx.spawn(work.into_actor(self).map(move |(totals, outcome, refused, took), writer, ctx| {
            writer.serving = false;
            let ok = outcome.is_ok();
            let rows = *outcome.as_ref().unwrap_or(&0);
            writer.acknowledged(totals, rows, took);
            match outcome {
                Ok(_) => writer.healthy(),
                Err(error) => writer.failed(&error),
            }
            if let Some(refused) = refused {
                writer.tell_refused(&refused);
            }
            for waiter in waiting {
                let _ = waiter.send(ok);
            }
            let pause = if !writer.waiting.is_empty() && ok { Duration::ZERO } else { writer.pause(took) };
            writer.timer = Some(ctx.run_later(pause, |writer, ctx| writer.serve(ctx)));
        }));
    }

    /// Until the next serving: the interval less what this one took; longer after failures.
    fn pause(&self, took: Duration) -> Duration {
        let interval = self.setup.pipeline.realtime.flush_interval;
        match self.failures {
            0 => interval.saturating_sub(took),
            n => (Duration::from_millis(250) * (1 << n.min(5))).min(Duration::from_secs(5)),
        }
    }

    fn healthy(&mut self) {
        if self.failures > 0 {
            tracing::info!(pipeline = self.setup.pipeline.name, "Fast-agg: ClickHouse takes totals again");
        }
        self.failures = 0;
        self.refused = false;
        self.setup.board.shared_sink("clickhouse", &self.setup.pipeline.name, SinkCondition::Healthy);
    }

    /// Says which aggregates are not served, while the others go on, and which can be again.
    fn tell_refused(&self, refused: &Refused) {
        let board = &self.setup.board;
        let told: Vec<_> = board.sinks();
        for (aggregate, plan) in self.served.plans().iter().enumerate() {
            let sink = format!("clickhouse/{}", plan.name);
            let was = told.iter().any(|(name, state)| *name == sink && state.condition != SinkCondition::Healthy);
            match refused.iter().find(|(a, _)| *a == aggregate) {
                Some((_, error)) => {
                    let error = error.to_string();
                    if !was {
                        tracing::error!(
                            aggregate = plan.name,
                            error,
                            "Fast-agg: one aggregate is not served until somebody acts; the others go on"
                        );
                    }
                    board.sink(&sink, SinkCondition::Retrying { error });
                }
                None if was => {
                    tracing::info!(aggregate = plan.name, "Fast-agg: the aggregate can be served again");
                    board.sink(&sink, SinkCondition::Healthy);
                }
                None => {}
            }
        }
    }

    /// What was written is told to its windows; what was not stays changed there.
    fn acknowledged(&mut self, totals: Vec<(PartitionTotals, Giver)>, rows: u64, took: Duration) {
        let labels = [self.setup.pipeline.name.as_str()];
        if rows > 0 {
            names::REALTIME_ROWS.add(rows, &labels);
            names::REALTIME_FLUSH_SECONDS.observe(took, &labels);
        }
        for (PartitionTotals { source, position, written, .. }, (windows, oldest)) in totals {
            if let Some(position) = position {
                self.setup.board.realtime_at(&source, position);
                if let Some(oldest) = oldest {
                    let waited = Duration::from_micros((now_micros() - oldest).max(0) as u64);
                    names::END_TO_END_SECONDS.observe(waited, &[labels[0], "realtime"]);
                }
            }
            if !written.is_empty() {
                windows.do_send(Acknowledge(written));
            }
        }
        self.rows_since_told += rows;
        if self.told.elapsed() >= Duration::from_secs(30) {
            tracing::info!(
                pipeline = self.setup.pipeline.name,
                rows = self.rows_since_told,
                "Fast-agg: totals served in the last 30 s"
            );
            (self.told, self.rows_since_told) = (Instant::now(), 0);
        }
    }

    fn failed(&mut self, error: &Error) {
        self.failures += 1;
        names::REALTIME_FAILURES.add(1, &[&self.setup.pipeline.name]);
        let text = error.to_string();
        let condition = if error.kind == ErrorKind::Auth {
            if !self.refused {
                tracing::error!(error = text, "Fast-agg: ClickHouse refuses our user or password; Bronze goes on");
            }
            self.refused = true;
            SinkCondition::Refused { error: text }
        } else {
            if self.failures == 1 {
                tracing::warn!(
                    error = text,
                    "Fast-agg: ClickHouse does not take totals; Bronze goes on, windows follow"
                );
            }
            SinkCondition::Retrying { error: text }
        };
        self.setup.board.shared_sink("clickhouse", &self.setup.pipeline.name, condition);
        if error.kind == ErrorKind::Missing {
            // What was acknowledged went with the tables: everything is counted again.
            for windows in self.windows.values() {
                windows.do_send(DropStates { only_over_budget: false });
            }
        }
    }
}

/// Whose totals they are, and when the oldest record in them came to Kafka, microseconds since the epoch.
type Giver = (Mailbox<WindowAggregator>, Option<i64>);

takes_mail!(RealtimeWriter: Windows, ServeNow, End);

impl Actor for RealtimeWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        tracing::info!(
            pipeline = self.setup.pipeline.name,
            interval_ms = self.setup.pipeline.realtime.flush_interval.as_millis() as u64,
            "Fast-agg streaming to {}",
            self.setup.server.clickhouse.url
        );
        let interval = self.setup.pipeline.realtime.flush_interval;
        self.timer = Some(ctx.run_later(interval, |writer, ctx| writer.serve(ctx)));
    }
}

impl Handler<Windows> for RealtimeWriter {
    type Result = ();

    fn handle(&mut self, Windows(source, windows): Windows, _: &mut Context<Self>) {
        match windows {
            Some(addr) => self.windows.insert(source, addr),
            None => self.windows.remove(&source),
        };
    }
}

impl Handler<ServeNow> for RealtimeWriter {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: ServeNow, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, told) = oneshot::channel();
        self.waiting.push(sender);
        self.serve(ctx);
        Box::pin(async move { told.await.unwrap_or(false) })
    }
}

impl Handler<End> for RealtimeWriter {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
