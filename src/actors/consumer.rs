//! One partition's consumer: each batch goes, shared, to both sinks; the next is taken when both have it.

use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::mpsc;

use super::bronze::{self, BronzeWriter};
use super::mailbox::{Mailbox, takes_mail};
use super::pipeline::{PartitionFailed, PipelineSupervisor};
use super::setup::Setup;
use super::supervise::End;
use super::windows::{AtEnd, Fold, GoLive, WindowAggregator};
use crate::event::Batch;
use crate::failpoint;
use crate::holds::Hold;
use crate::kafka::{ReaderEvent, Source};
use crate::telemetry::{Consumed, PartitionPhase};
use crate::window::Verdict;

/// Stops between two batches with everything handed on committed in Bronze, lets the windows join there, and goes on.
/// Answers whether they did.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct JoinWindows;

/// The partition's windows run in a new actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct NewWindows(pub Mailbox<WindowAggregator>);

/// See the file's head.
pub struct PartitionConsumer {
    setup: Arc<Setup>,
    round: u64,
    source: Arc<Source>,
    supervisor: Mailbox<PipelineSupervisor>,
    bronze: Mailbox<BronzeWriter>,
    windows: Mailbox<WindowAggregator>,
    events: Option<mpsc::Receiver<ReaderEvent>>,
    running: bool,
    /// Since when there is nothing new. The reader tells it once; windows that are made anew are told again.
    at_end: Option<Instant>,
}

impl PartitionConsumer {
    pub fn new(
        setup: Arc<Setup>,
        round: u64,
        source: Arc<Source>,
        supervisor: Mailbox<PipelineSupervisor>,
        sinks: (Mailbox<BronzeWriter>, Mailbox<WindowAggregator>),
        events: mpsc::Receiver<ReaderEvent>,
    ) -> Self {
        let (bronze, windows) = sinks;
        Self { setup, round, source, supervisor, bronze, windows, events: Some(events), running: false, at_end: None }
    }

    fn hand_on(&mut self, batch: Arc<Batch>, ctx: &mut Context<Self>) {
        failpoint::hit("actor.partition_consumer");
        self.at_end = None; // the windows see it by the batch
        let appended = self.bronze.send(bronze::Append(batch.clone()));
        let folded = self.windows.send(Fold(batch.clone()));
        let both = async move { tokio::join!(appended, folded) };
        ctx.wait(both.into_actor(self).map(move |(appended, folded), consumer, ctx| {
            if folded.is_err() {
                // The windows' actor is gone; its supervisor makes another, which recounts from Bronze. Bronze goes on.
                tracing::debug!(source = %consumer.source, "batch not folded: the windows are being rebuilt");
            }
            match appended {
                Ok(Ok(())) => consumer.tell(&batch),
                // The writer has failed and said why; nothing of this batch is lost, since its position was not committed.
                Ok(Err(_)) | Err(_) => ctx.stop(),
            }
        }));
    }

    fn at_end(&mut self, since: Option<Instant>) {
        self.at_end = since;
        self.windows.do_send(AtEnd(since));
    }

    fn tell(&mut self, batch: &Batch) {
        if !self.running {
            self.running = true;
            self.setup.board.partition_phase(&self.source, PartitionPhase::Running);
        }
        let mut verdicts = [0; Verdict::ALL.len()];
        for verdict in &batch.verdicts {
            verdicts[*verdict as usize] += 1;
        }
        let raw = &batch.columns.raw;
        self.setup.board.consumed(
            &self.source,
            &Consumed {
                records: batch.len() as u64,
                bytes: (raw.keys.len() + raw.value_ends.last().map_or(0, |end| *end as usize)) as u64,
                verdicts,
                next: batch.next,
                mark: batch.mark,
            },
        );
    }
}

takes_mail!(PartitionConsumer: JoinWindows, NewWindows, End);

impl Actor for PartitionConsumer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(mut events) = self.events.take() {
            ctx.add_stream(futures::stream::poll_fn(move |cx| events.poll_recv(cx)));
        }
    }
}

impl StreamHandler<ReaderEvent> for PartitionConsumer {
    fn handle(&mut self, event: ReaderEvent, ctx: &mut Context<Self>) {
        match event {
            ReaderEvent::Batch(batch) => self.hand_on(batch, ctx),
            ReaderEvent::End => {
                if !self.running {
                    self.running = true;
                    self.setup.board.partition_phase(&self.source, PartitionPhase::Running);
                }
                self.at_end(Some(Instant::now()));
            }
            ReaderEvent::Held(Some(Hold { by, since, until, reason, .. })) => {
                tracing::info!(source = %self.source, by, reason, "partition paused; what was read is committed");
                // Nobody knows any more what it adds: it holds back `complete`. The reader tells the end anew.
                self.at_end(None);
                self.setup.board.partition_phase(&self.source, PartitionPhase::Paused { by, since, until, reason });
                // The writer says itself why it could not.
                self.bronze.do_send(bronze::Flush);
            }
            ReaderEvent::Held(None) => {
                tracing::info!(source = %self.source, "partition resumed");
                self.running = true;
                self.setup.board.resumed(&self.source);
            }
            ReaderEvent::Failed(error) => {
                self.at_end(None); // as in a pause
                // What was read is committed first: whoever looks what to do about it finds it in Bronze. The writer says
                // itself why it could not.
                let flushed = self.bronze.send(bronze::Flush);
                ctx.wait(flushed.into_actor(self).map(move |_, consumer, _| {
                    let (round, partition) = (consumer.round, consumer.source.partition);
                    consumer.supervisor.do_send(PartitionFailed { round, partition, error });
                }));
            }
        }
    }

    /// The reader has stopped, and everything it read is handed on.
    fn finished(&mut self, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

impl Handler<JoinWindows> for PartitionConsumer {
    type Result = AtomicResponse<Self, bool>;

    fn handle(&mut self, _: JoinWindows, _: &mut Context<Self>) -> Self::Result {
        let (bronze, windows) = (self.bronze.clone(), self.windows.clone());
        let join = async move {
            if !matches!(bronze.send(bronze::Flush).await, Ok(Ok(()))) {
                return false;
            }
            windows.send(GoLive).await.unwrap_or(false)
        };
        AtomicResponse::new(Box::pin(join.into_actor(self)))
    }
}

impl Handler<NewWindows> for PartitionConsumer {
    type Result = ();

    fn handle(&mut self, NewWindows(windows): NewWindows, _: &mut Context<Self>) {
        self.windows = windows;
        self.windows.do_send(AtEnd(self.at_end));
    }
}

impl Handler<End> for PartitionConsumer {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
