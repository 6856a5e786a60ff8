//! Partitions come and go: where each starts, and how it leaves drained. Both run while the client's thread waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::super::bronze::{Acquire, Flush, Genesis, Release};
use super::super::consumer::PartitionConsumer;
use super::super::mailbox::count_channel;
use super::super::realtime::{ServeNow, Served, Windows};
use super::super::setup::Setup;
use super::super::supervise::{End, Ended, launch};
use super::super::windows::Consumer;
use super::super::witness;
use super::{ConsumerEnded, Fault, PipelineSupervisor, Running, held};
use crate::bronze::{BronzeError, Position};
use crate::config::StartAt;
use crate::event::{self, Decoder};
use crate::kafka::{Assigned, Drained, Known, Place, Placement, Source, place};
use crate::recount;
use crate::telemetry::{Acquired, ActorId};
use crate::window::{Counter, EventClock, Rule, Standing};

/// Batches that a partition's reader may run ahead of its consumer.
const AHEAD: usize = 1;
/// How long a drain may take at a revocation.
const DRAIN: Duration = Duration::from_secs(20);

impl PipelineSupervisor {
    /// Partitions came: they are placed where Bronze stands, and their actors made.
    pub(super) fn assigned(
        &mut self,
        partitions: Vec<Assigned>,
        reply: SyncSender<HashMap<i32, Place>>,
        ctx: &mut Context<Self>,
    ) {
        let Some(session) = self.session.as_ref().filter(|_| self.fault.is_none()) else {
            let _ = reply.send(HashMap::new());
            return;
        };
        let pipeline: Arc<str> = self.setup.pipeline.name.as_str().into();
        let topic: Arc<str> = self.setup.pipeline.topic.as_str().into();
        let sources: Vec<Arc<Source>> = partitions
            .iter()
            .map(|p| {
                Arc::new(Source {
                    pipeline: pipeline.clone(),
                    topic: topic.clone(),
                    generation: session.generation,
                    partition: p.partition,
                })
            })
            .collect();
        let bronze = session.bronze.clone();
        let (table_id, start_at) = (session.table_id.clone(), self.setup.pipeline.start_at);
        let generation = session.generation;
        let (setup, served) = (self.setup.clone(), session.served.clone());
        let work = async move {
            let gone = |_| BronzeError::Io { what: "placing partitions".into(), cause: "the writer is gone".into() };
            let acquired = bronze.send(Acquire(sources.clone())).await.map_err(gone)??;
            // A topic that was made anew is read from its beginning, whatever the first one was.
            let mut begun = generation > 0 || acquired.positions.iter().any(Option::is_some);
            if !begun && start_at == StartAt::Latest {
                // Partitions may have come without those that the pipeline began with.
                let first = Arc::new(Source { partition: 0, ..(*sources[0]).clone() });
                let known = served.table.ledger().acquire(&[first]).await?;
                begun = known.positions.iter().any(Option::is_some);
            }
            let mut begin = Vec::new();
            let mut placed = Vec::new();
            for ((assigned, source), position) in partitions.iter().zip(&sources).zip(&acquired.positions) {
                let placement = place(&Known {
                    name: &format!("{}/{}", source.topic, source.partition),
                    pipeline: &source.pipeline,
                    log: assigned.log.clone(),
                    bronze: position.map(|p| p.next_offset),
                    pipeline_has_begun: begun,
                    start_at,
                    committed_table: assigned.committed_table.as_deref(),
                    our_table: &table_id,
                });
                let placement = match placement {
                    Placement::Continue(at) => witness::confirm(&setup, &served, source, at, &assigned.log).await,
                    other => other,
                };
                let stands_at = match placement {
                    Placement::Begin(offset) | Placement::Continue(offset) => Some(offset),
                    Placement::Stop { .. } => None,
                };
                let counter = match (Rule::new(&setup.pipeline.bad_records), stands_at) {
                    (Some(rule), Some(at)) => Some(Box::new(bad_records(&setup, &served, source, at, rule).await?)),
                    _ => None,
                };
                let at = match &placement {
                    Placement::Begin(offset) => {
                        begin.push((source.clone(), *offset));
                        Some(Position { next_offset: *offset, mark: None })
                    }
                    Placement::Continue(_) => *position,
                    Placement::Stop { .. } => None,
                };
                placed.push((source.clone(), placement, at, assigned.log.end, counter));
            }
            if !begin.is_empty() {
                bronze.send(Genesis(begin)).await.map_err(gone)??;
            }
            Ok::<_, BronzeError>(placed)
        };
        ctx.wait(work.into_actor(self).map(move |outcome, supervisor, ctx| {
            let mut places = HashMap::new();
            match outcome {
                Ok(placed) => {
                    for (source, placement, at, log_end, counter) in placed {
                        let place = match (placement, at) {
                            (Placement::Stop { what, command }, _) => {
                                tracing::error!(%source, what, command, "partition stopped until somebody decides");
                                supervisor.setup.board.stopped(&source, what, command);
                                Place::Hold
                            }
                            (_, Some(at)) => supervisor.launch_partition(source.clone(), at, log_end, counter, ctx),
                            (_, None) => Place::Hold,
                        };
                        places.insert(source.partition, place);
                    }
                }
                Err(error) => supervisor.fail(Fault::from(&error), ctx),
            }
            // A client that no longer waits is closing.
            let _ = reply.send(places);
        }));
    }

    fn launch_partition(
        &mut self,
        source: Arc<Source>,
        at: Position,
        log_end: i64,
        counter: Option<Box<Counter>>,
        ctx: &mut Context<Self>,
    ) -> Place {
        let setup = self.setup.clone();
        let Some((bronze, schema)) = self.session.as_ref().map(|s| (s.bronze.clone(), s.schema.clone())) else {
            return Place::Hold;
        };
        setup.board.acquired(
            &source,
            &Acquired {
                position: at.next_offset,
                mark: at.mark,
                bound: setup.pipeline.time.bound,
                bronze_flush_interval: setup.pipeline.bronze.flush_interval,
                realtime_flush_interval: (!setup.pipeline.aggregates.is_empty())
                    .then_some(setup.pipeline.realtime.flush_interval),
            },
        );
        setup.board.end_offset(&source, log_end);
        if !setup.pipeline.aggregates.is_empty() {
            // Not known until ClickHouse has taken totals, or they came back from it.
            setup.board.realtime_at(&source, 0);
        }
        let start = Standing { next_offset: at.next_offset, mark: at.mark };
        let Some(windows) = self.launch_windows(&source, Some(start), ctx) else { return Place::Hold };
        let (events, inbox) = mpsc::channel(AHEAD);
        let (consumer, ended) = {
            let (setup, source, supervisor, round) = (setup.clone(), source.clone(), self.mailbox(ctx), self.round);
            let sinks = (bronze, windows.clone());
            launch(&self.setup.stream_arbiter, move |_| {
                PartitionConsumer::new(setup, round, source, supervisor, sinks, inbox)
            })
        };
        let id = ActorId::new("partition_consumer", source.to_string());
        count_channel(consumer.inbox(), &events);
        setup.board.actor_lives(&id, consumer.inbox());
        setup.board.actor_running(&id, false);
        windows.do_send(Consumer(consumer.clone()));
        let (done, consumer_ended) = oneshot::channel();
        let (round, of, supervisor) = (self.round, source.clone(), self.mailbox(ctx));
        // Not in this actor's own context, which stands still while it drains what has just ended.
        actix_rt::spawn(async move {
            let how = ended.await.unwrap_or(Ended::Stopped);
            let _ = done.send(());
            supervisor.do_send(ConsumerEnded { round, source: of, how });
        });
        tracing::info!(%source, position = at.next_offset, "partition taken up at Bronze's position");
        if let Some(session) = &mut self.session {
            session.partitions.insert(source.partition, Running { source: source.clone(), consumer, consumer_ended });
        }
        if source.partition == 0 {
            self.launch_upkeep(ctx);
        }
        let clock = EventClock::new(&setup.pipeline.time, at.mark);
        let decoder = Box::new(Decoder::new(schema, &event::coded_fields(&setup.pipeline)));
        Place::From { source, position: at.next_offset, clock, decoder, events, holds: setup.holds.clone(), counter }
    }

    /// Partitions leave: their readers have stopped. Unless something has failed, everything in hand is made durable.
    pub(super) fn revoked(
        &mut self,
        partitions: Vec<i32>,
        reply: SyncSender<Option<Drained>>,
        ctx: &mut Context<Self>,
    ) {
        let faulty = self.fault.is_some();
        let (board, upkeep) = (self.setup.board.clone(), self.child("upkeep"));
        let serves = !self.setup.pipeline.aggregates.is_empty();
        let Some(session) = &mut self.session else {
            let _ = reply.send(None);
            return;
        };
        if partitions.contains(&0) {
            // The partition's new owner has somebody else look after the tables.
            if let Some(upkeep) = session.upkeep.take() {
                upkeep.do_send(End);
            }
            board.actor_gone(&upkeep);
        }
        for partition in partitions.iter().filter(|p| !session.partitions.contains_key(p)) {
            // One that had stopped: whoever has it now tells of it.
            let (pipeline, topic) =
                (self.setup.pipeline.name.as_str().into(), self.setup.pipeline.topic.as_str().into());
            board.revoked(&Source { pipeline, topic, generation: session.generation, partition: *partition });
        }
        let leaving: Vec<Running> = partitions.iter().filter_map(|p| session.partitions.remove(p)).collect();
        let (bronze, realtime) = (session.bronze.clone(), session.realtime.clone());
        let table = session.table_id.clone();
        let drain = async move {
            let mut sources = Vec::new();
            let mut ended = Vec::new();
            for running in leaving {
                sources.push(running.source);
                ended.push(running.consumer_ended);
            }
            let mut drained = None;
            let mut both = false;
            if !faulty {
                let work = async {
                    futures::future::join_all(ended).await;
                    let served = realtime.send(ServeNow);
                    let flushed = bronze.send(Flush);
                    let (served, flushed) = tokio::join!(served, flushed);
                    matches!(flushed, Ok(Ok(()))).then_some(matches!(served, Ok(true)))
                };
                let flushed = actix_rt::time::timeout(DRAIN, work).await.unwrap_or(None);
                both = flushed == Some(true);
                if flushed.is_some() {
                    let offsets = sources.iter().filter_map(|s| held(&board, s, serves)).collect();
                    drained = Some(Drained { offsets, table });
                } else {
                    tracing::warn!("partitions leave undrained; what Bronze does not hold is read again");
                }
            }
            for source in &sources {
                realtime.do_send(Windows(source.clone(), None));
                board.revoked(source);
            }
            let _ = bronze.send(Release(sources)).await;
            (drained, both)
        };
        ctx.wait(drain.into_actor(self).map(move |(drained, both), supervisor, ctx| {
            supervisor.drained = both;
            let _ = reply.send(drained);
            supervisor.bid_farewell(ctx);
        }));
    }
}

/// Counts the bad ones among the records that a partition has read last: whether it had stopped for them must be known before
/// it is read on.
async fn bad_records(
    setup: &Setup,
    served: &Arc<Served>,
    source: &Arc<Source>,
    at: i64,
    rule: Rule,
) -> Result<Counter, BronzeError> {
    let (served, source) = (served.clone(), source.clone());
    let count = setup.io.spawn(async move { recount::bad_records(&served.table, &source, at, rule).await });
    count.await.unwrap_or_else(|panic| {
        Err(BronzeError::Io { what: "counting bad records ended abnormally".into(), cause: panic.to_string() })
    })
}
