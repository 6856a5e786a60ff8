//! Appends batches to the Bronze file being filled and commits it, on bytes or linger, whichever is first. One commit is in
//! flight while the next file fills; a batch that finds no room is acknowledged when there is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::{Mutex, oneshot};

use super::mailbox::{Mailbox, takes_mail};
use super::pipeline::{PipelineSupervisor, SessionFailed};
use super::setup::Setup;
use super::supervise::End;
use crate::bronze::{Acquired, Advance, Advances, BronzeError, DeltaLog, Encoder, Flushes, Ledger, Table};
use crate::event::Batch;
use crate::failpoint;
use crate::kafka::{Source, now_micros};
use crate::telemetry::{SinkCondition, names};

/// Appends a batch; answered when the batch is in the file being filled.
#[derive(Message)]
#[rtype(result = "Result<(), Gone>")]
pub struct Append(pub Arc<Batch>);

/// Commits everything appended so far; answered when it is durable.
#[derive(Message)]
#[rtype(result = "Result<(), Gone>")]
pub struct Flush;

/// Takes partitions up: their durable positions, in the order asked for.
#[derive(Message)]
#[rtype(result = "Result<Acquired, BronzeError>")]
pub struct Acquire(pub Vec<Arc<Source>>);

/// Commits first positions of partitions that Bronze does not know yet.
#[derive(Message)]
#[rtype(result = "Result<(), BronzeError>")]
pub struct Genesis(pub Vec<(Arc<Source>, i64)>);

/// Lets partitions go: their later commits by others are none of our business.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Release(pub Vec<Arc<Source>>);

/// The writer has failed; its supervisor knows why.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the Bronze writer has ended")]
pub struct Gone;

/// Whom to answer later.
type Waiter = oneshot::Sender<Result<(), Gone>>;

/// The table and its ledger, used by one operation at a time.
pub struct Store {
    pub table: Table,
    pub ledger: Ledger<DeltaLog>,
}

struct Filling {
    encoder: Encoder,
    advances: Advances,
    /// When its first batch came.
    since: Instant,
    /// When the oldest record in it came to Kafka, microseconds since the epoch.
    oldest: i64,
    /// Time that encoding has taken so far.
    encoding: Duration,
}

/// See the file's head.
pub struct BronzeWriter {
    setup: Arc<Setup>,
    round: u64,
    supervisor: Mailbox<PipelineSupervisor>,
    store: Arc<Mutex<Store>>,
    filling: Option<Filling>,
    /// An encoder that has written its file, for the next one: its buffers are warm.
    spare: Option<Encoder>,
    /// Batches that found no room, with what their senders wait on.
    waiting: VecDeque<(Arc<Batch>, Waiter)>,
    flushes: Flushes,
    /// Memory that the file being written holds.
    writing_bytes: usize,
    flush_waiters: Vec<(u64, Waiter)>,
}

impl BronzeWriter {
    pub fn new(setup: Arc<Setup>, round: u64, supervisor: Mailbox<PipelineSupervisor>, store: Store) -> Self {
        Self {
            setup,
            round,
            supervisor,
            store: Arc::new(Mutex::new(store)),
            filling: None,
            spare: None,
            waiting: VecDeque::new(),
            flushes: Flushes::default(),
            writing_bytes: 0,
            flush_waiters: Vec::new(),
        }
    }

    fn full(&self) -> bool {
        let limit = self.setup.budget.bronze_file.min(self.setup.pipeline.bronze.flush_bytes.bytes());
        self.filling.as_ref().is_some_and(|f| f.encoder.encoded_bytes() >= limit)
    }

    /// Whether the batch may go into the file being filled.
    fn has_room(&self, batch: &Batch) -> bool {
        !self.full() && self.filling.as_ref().is_none_or(|f| f.encoder.accepts(batch))
    }

    fn append(&mut self, batch: &Batch, ctx: &mut Context<Self>) -> Result<(), BronzeError> {
        if self.filling.is_none() {
            let encoder = match self.spare.take() {
                Some(encoder) => encoder,
                None => Encoder::new(&self.setup.pipeline)?,
            };
            self.filling = Some(Filling {
                encoder,
                advances: Advances::default(),
                since: Instant::now(),
                oldest: batch.received_at,
                encoding: Duration::ZERO,
            });
            let number = self.flushes.next();
            ctx.run_later(self.setup.pipeline.bronze.flush_interval, move |writer, ctx| {
                if writer.flushes.next() <= number {
                    writer.start_flush(ctx);
                }
            });
        }
        // Just filled, if it was empty.
        if let Some(filling) = &mut self.filling {
            filling.advances.extend(batch)?;
            if !batch.is_empty() {
                let started = Instant::now();
                filling.encoder.push(batch)?;
                filling.encoding += started.elapsed();
                let kafka_ms = batch.columns.raw.timestamps[0];
                filling.oldest = filling.oldest.min(if kafka_ms < 0 { batch.received_at } else { kafka_ms * 1000 });
            }
        }
        self.tell_memory();
        Ok(())
    }

    fn tell_memory(&self) {
        let filling = self.filling.as_ref().map_or(0, |f| f.encoder.memory());
        let waiting: usize = self.waiting.iter().map(|(batch, _)| batch.columns.raw.memory()).sum();
        let held = filling + self.writing_bytes + waiting;
        self.setup.board.bronze_holds(&self.setup.pipeline.name, held as u64);
    }

    /// Freezes the file and commits it, unless one is being committed: then that one's end starts this.
    fn start_flush(&mut self, ctx: &mut Context<Self>) {
        if self.flushes.writing() {
            return;
        }
        let Some(filling) = self.filling.take() else { return };
        let number = self.flushes.begin();
        let store = self.store.clone();
        let advances = filling.advances.into_vec();
        let committed = advances.clone();
        let mut encoder = filling.encoder;
        let rows = encoder.rows() as u64;
        let encoding = filling.encoding;
        self.writing_bytes = encoder.memory();
        let pipeline = self.setup.pipeline.name.clone();
        let write = self.setup.io.spawn(async move {
            let mut store = store.lock().await;
            let Store { table, ledger } = &mut *store;
            let mut adds = Vec::new();
            let mut bytes = 0;
            let sealing = Instant::now();
            if let Some(file) = encoder.seal()? {
                names::BRONZE_ENCODE_SECONDS.observe(encoding + sealing.elapsed(), &[&pipeline]);
                bytes = file.size as u64;
                failpoint::hit("bronze.before_file");
                adds.push(table.write_file(file).await?);
            }
            let started = Instant::now();
            let done = ledger.commit(&adds, &advances).await?;
            names::BRONZE_COMMIT_SECONDS.observe(started.elapsed(), &[&pipeline]);
            if done.attempts > 1 {
                names::BRONZE_UNKNOWN.add(u64::from(done.attempts - 1), &[&pipeline]);
            }
            Ok::<_, BronzeError>((done.version, bytes, encoder))
        });
        ctx.run_later(SLOW, move |writer, _| {
            if !writer.flushes.ended(number) {
                let error = format!("a commit has been tried for {SLOW:?} so far; the log says why, once it is known");
                writer.setup.board.sink(&writer.setup.bronze_sink(), SinkCondition::Retrying { error });
            }
        });
        let filled_for = filling.since.elapsed();
        let oldest = filling.oldest;
        let started = Instant::now();
        ctx.spawn(write.into_actor(self).map(move |outcome, writer, ctx| {
            writer.flushes.end();
            writer.writing_bytes = 0;
            writer.tell_memory();
            match outcome {
                Ok(Ok((version, bytes, encoder))) => {
                    writer.spare.get_or_insert(encoder);
                    let written = Written { version, rows, bytes, filled_for, took: started.elapsed(), oldest };
                    writer.committed(&committed, &written);
                    writer.go_on(ctx);
                }
                Ok(Err(error)) => writer.fail(error, ctx),
                Err(panic) => writer.fail(panicked(&panic), ctx),
            }
        }));
    }

    fn committed(&mut self, advances: &[Advance], written: &Written) {
        for advance in advances {
            self.setup.board.bronze_at(&advance.source, advance.next_offset);
        }
        self.setup.board.sink(&self.setup.bronze_sink(), SinkCondition::Healthy);
        written.tell(&self.setup.pipeline.name);
        let flushes = &self.flushes;
        for (_, waiter) in self.flush_waiters.extract_if(.., |(target, _)| flushes.ended(*target)) {
            // Who no longer waits need not be told.
            let _ = waiter.send(Ok(()));
        }
    }

    /// Takes the batches that waited for room, and commits what is due.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        while let Some((batch, _)) = self.waiting.front() {
            if !self.has_room(batch) {
                break;
            }
            let Some((batch, sender)) = self.waiting.pop_front() else { break };
            if let Err(error) = self.append(&batch, ctx) {
                return self.fail(error, ctx);
            }
            let _ = sender.send(Ok(()));
        }
        let linger = self.setup.pipeline.bronze.flush_interval;
        let due = self.filling.as_ref().is_some_and(|f| f.since.elapsed() >= linger);
        if due || self.full() || !self.waiting.is_empty() || !self.flush_waiters.is_empty() {
            self.start_flush(ctx);
        }
    }

    /// A look at the log while nothing is committed. Storage that does not answer is told by whoever has to commit.
    fn looked(
        &mut self,
        ctx: &mut Context<Self>,
        look: impl Future<Output = Result<(), BronzeError>> + Send + 'static,
    ) {
        let look = self.setup.io.spawn(look);
        ctx.spawn(look.into_actor(self).map(|outcome, writer, ctx| match outcome {
            Ok(Err(error @ BronzeError::Io { .. })) => {
                tracing::debug!(pipeline = writer.setup.pipeline.name, %error, "the log is looked at later");
            }
            Ok(Err(error)) => writer.fail(error, ctx),
            Ok(Ok(())) | Err(_) => {}
        }));
    }

    fn fail(&mut self, error: BronzeError, ctx: &mut Context<Self>) {
        let condition = if error.reacquire() {
            // The log has answered: what is wrong is what this instance knew of it.
            SinkCondition::Healthy
        } else {
            SinkCondition::Retrying { error: error.to_string() }
        };
        if matches!(error, BronzeError::Fenced { .. } | BronzeError::Expired { .. }) {
            names::BRONZE_FENCED.add(1, &[&self.setup.pipeline.name]);
        }
        self.setup.board.sink(&self.setup.bronze_sink(), condition);
        self.supervisor.do_send(SessionFailed { round: self.round, error });
        ctx.stop();
    }
}

fn panicked(panic: &tokio::task::JoinError) -> BronzeError {
    BronzeError::Io { what: "a Bronze operation ended abnormally".into(), cause: panic.to_string() }
}

/// One commit, for the log and the metrics.
struct Written {
    version: u64,
    rows: u64,
    bytes: u64,
    filled_for: Duration,
    took: Duration,
    /// When the oldest record in it came to Kafka, microseconds since the epoch.
    oldest: i64,
}

impl Written {
    fn tell(&self, pipeline: &str) {
        names::BRONZE_ROWS.add(self.rows, &[pipeline]);
        names::BRONZE_BYTES.add(self.bytes, &[pipeline]);
        names::BRONZE_FLUSH_SECONDS.observe(self.took, &[pipeline]);
        let oldest = Duration::from_micros((now_micros() - self.oldest).max(0) as u64);
        names::END_TO_END_SECONDS.observe(oldest, &[pipeline, "bronze"]);
        tracing::debug!(
            pipeline,
            version = self.version,
            rows = self.rows,
            bytes = self.bytes,
            filled_for_ms = self.filled_for.as_millis() as u64,
            took_ms = self.took.as_millis() as u64,
            "Bronze commit"
        );
    }
}

takes_mail!(BronzeWriter: Append, Flush, Acquire, Genesis, Release, End);

impl Actor for BronzeWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(FOLLOW, |writer, ctx| {
            let store = writer.store.clone();
            writer.looked(ctx, async move { store.lock().await.ledger.follow().await });
        });
        ctx.run_interval(GLANCE, |writer, ctx| {
            let store = writer.store.clone();
            // Whoever commits reads the log himself.
            writer.looked(ctx, async move {
                match store.try_lock() {
                    Ok(mut store) => store.ledger.glance().await,
                    Err(_) => Ok(()),
                }
            });
        });
    }
}

/// A commit that takes longer is told.
const SLOW: Duration = Duration::from_secs(10);

/// How often a quiet writer looks at the log, so that what it knows of it does not grow too old to commit on.
const FOLLOW: Duration = Duration::from_secs(300);

/// How often it looks whether others have committed: a choice made at another instance is noticed within that time.
const GLANCE: Duration = Duration::from_secs(5);

impl Handler<Append> for BronzeWriter {
    type Result = ResponseFuture<Result<(), Gone>>;

    fn handle(&mut self, Append(batch): Append, ctx: &mut Context<Self>) -> Self::Result {
        failpoint::hit("actor.bronze_writer");
        if !self.waiting.is_empty() || !self.has_room(&batch) {
            let (sender, told) = oneshot::channel();
            self.waiting.push_back((batch, sender));
            self.start_flush(ctx);
            return Box::pin(async move { told.await.unwrap_or(Err(Gone)) });
        }
        if let Err(error) = self.append(&batch, ctx) {
            self.fail(error, ctx);
            return Box::pin(std::future::ready(Err(Gone)));
        }
        if self.full() {
            self.start_flush(ctx);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Handler<Flush> for BronzeWriter {
    type Result = ResponseFuture<Result<(), Gone>>;

    fn handle(&mut self, _: Flush, ctx: &mut Context<Self>) -> Self::Result {
        let Some(target) = self.flushes.awaited(self.filling.is_some()) else {
            return Box::pin(std::future::ready(Ok(())));
        };
        let (sender, told) = oneshot::channel();
        self.flush_waiters.push((target, sender));
        self.start_flush(ctx);
        Box::pin(async move { told.await.unwrap_or(Err(Gone)) })
    }
}

impl Handler<Acquire> for BronzeWriter {
    type Result = ResponseFuture<Result<Acquired, BronzeError>>;

    fn handle(&mut self, Acquire(sources): Acquire, _: &mut Context<Self>) -> Self::Result {
        let store = self.store.clone();
        let run = self.setup.io.spawn(async move { store.lock().await.ledger.acquire(&sources).await });
        Box::pin(async move { run.await.unwrap_or_else(|panic| Err(panicked(&panic))) })
    }
}

impl Handler<Genesis> for BronzeWriter {
    type Result = ResponseFuture<Result<(), BronzeError>>;

    fn handle(&mut self, Genesis(starts): Genesis, _: &mut Context<Self>) -> Self::Result {
        let store = self.store.clone();
        let run = self.setup.io.spawn(async move { store.lock().await.ledger.genesis(&starts).await.map(drop) });
        Box::pin(async move { run.await.unwrap_or_else(|panic| Err(panicked(&panic))) })
    }
}

impl Handler<Release> for BronzeWriter {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Release(sources): Release, _: &mut Context<Self>) -> Self::Result {
        let store = self.store.clone();
        Box::pin(async move {
            let mut store = store.lock().await;
            for source in &sources {
                store.ledger.release(source);
            }
        })
    }
}

impl Handler<End> for BronzeWriter {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
