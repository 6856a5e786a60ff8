//! The daemon: one actor system with a supervisor per pipeline, the runtime for I/O, the metrics listener, and the way out.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::budget::Budget;
use super::disks;
use super::pipeline::{PipelineSupervisor, StopPipeline};
use super::scheduler;
use super::setup::Setup;
use super::supervise::{Backoff, Ended, FIRST_PAUSE, GIVE_UP_AFTER, HEALTHY_AFTER, LONGEST_PAUSE, launch};
use crate::batch;
use crate::config::{Config, Pipeline, Server, Setting};
use crate::console::{Console, Given};
use crate::holds::Holds;
use crate::kafka;
use crate::reconcile::job::Job;
use crate::serving;
use crate::standstill::{Standstill, Standstills};
use crate::telemetry::{ActorId, Board, DaemonPhase, Limits, Listener, Recorder, names};

/// How long the start asks the broker how many partitions a topic has; the answer only cuts the memory budget.
const ASK: Duration = Duration::from_secs(2);
/// How long the actors' threads may take to end, once there is nothing to wait for. One that hangs ends with the process.
const THREADS_END: Duration = Duration::from_secs(2);
/// Partitions assumed where the broker does not say.
const PARTITIONS: usize = 8;

/// Runs until a signal asks it to stop and everything in hand is durable, or the deadline has passed.
pub fn run(config: Config, settings: Vec<Setting>) -> anyhow::Result<()> {
    keep_freed_memory();
    let server = Arc::new(config.server);
    let _lock = lock(&server.data_dir)?;
    let instance = instance_id(&server.data_dir)?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("io")
        .enable_all()
        .build()
        .context("cannot start the I/O runtime")?;
    let batch = batch::run::threads::runtime(server.batch.threads).context("cannot start the batch threads")?;
    let runtimes = (io.handle().clone(), batch.handle().clone());
    let outcome = System::new().block_on(serve(server, config.pipelines, settings, instance, runtimes));
    // They end with the process, and what a task still does is done again by the next start. Shutting them down would
    // drop tasks while others wait for their answers, over which delta-rs panics.
    std::mem::forget((io, batch));
    outcome
}

async fn serve(
    server: Arc<Server>,
    pipelines: Vec<Arc<Pipeline>>,
    settings: Vec<Setting>,
    instance: String,
    (io, batch_threads): (tokio::runtime::Handle, tokio::runtime::Handle),
) -> anyhow::Result<()> {
    // Before anything that takes time: a signal that comes during the start must not kill without draining.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let board = Board::new();
    board.memory_budget(server.memory_total());
    let recorder = Recorder::global().context("cannot install the metrics recorder")?;
    let standstills: Standstills =
        Arc::new(pipelines.iter().map(|pipeline| (pipeline.name.clone(), Standstill::default())).collect());
    let holds = Holds::open(&server.data_dir)?;
    holds.watch(&io);
    let limits = Limits { stall: server.metrics.not_ready_after, recovery: server.metrics.not_ready_after };
    let config = Config { server: (*server).clone(), pipelines: pipelines.clone() };
    let reconcile = Job::new(config, batch_threads.clone(), board.clone());
    // First: whoever waits for the metrics finds the first password written.
    let console = if server.console.listen.is_empty() {
        None
    } else {
        let (board, pipelines) = (board.clone(), pipelines.clone());
        let (server, holds, reconcile) = (server.clone(), holds.clone(), reconcile.clone());
        let standstills = standstills.clone();
        Some(Console::start(Given { board, limits, server, pipelines, settings, holds, standstills, reconcile })?)
    };
    let listener = Listener::start(&server.metrics.listen, board.clone(), recorder, limits)?;
    disks::watch(&server, &board, &io);
    let clickhouse = {
        let _runtime = io.enter();
        serving::Client::new(&server.clickhouse)?
    };
    let mut arbiters = Vec::new();
    let mut kept = Vec::new();
    let (stop, stopping) = watch::channel(false);
    let clock = batch::upkeep::Clock::now();
    for pipeline in &pipelines {
        names::begin(&pipeline.name);
        let bronze = named(c"bronze");
        let stream = named(c"stream");
        let partitions = partitions_of(&server, pipeline, &io).await;
        let setup = Arc::new(Setup {
            server: server.clone(),
            pipeline: pipeline.clone(),
            board: board.clone(),
            holds: holds.clone(),
            standstill: standstills.get(&pipeline.name).cloned().unwrap_or_default(),
            budget: Budget::divide(server.memory.budget.bytes(), pipelines.len(), partitions),
            clock,
            clickhouse: clickhouse.clone(),
            io: io.clone(),
            bronze_arbiter: bronze.handle(),
            stream_arbiter: stream.handle(),
            instance: instance.clone(),
        });
        kept.push(actix_rt::spawn(keep(setup, stopping.clone())));
        arbiters.extend([bronze, stream]);
    }
    let lake = batch::Lake::new(&server);
    if let Err(error) = &lake {
        tracing::error!(%error, "no batch run of this daemon will succeed");
    }
    let batches = actix_rt::spawn(scheduler::keep(Arc::new(scheduler::Setup {
        pipelines: pipelines
            .iter()
            .map(|pipeline| (pipeline.clone(), batch::tasks::work_on(lake.clone(), &server, pipeline, &clickhouse)))
            .collect(),
        server: server.clone(),
        lake: lake.ok(),
        board: board.clone(),
        io: io.clone(),
        batch: batch_threads,
        instance: instance.clone(),
        leaving: stopping.clone(),
    })));
    let by_schedule = actix_rt::spawn(reconcile.clone().keep_schedule(stopping.clone()));
    board.set_phase(DaemonPhase::Running);
    tracing::info!(
        pipelines = pipelines.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
        kafka = server.kafka.brokers,
        metrics = %listener.address(),
        console = console.as_ref().map(|console| console.address().to_string()),
        "boathouse runs"
    );

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let deadline = server.shutdown.deadline;
    tracing::info!(
        deadline_s = deadline.as_secs(),
        "stopping: draining what is in hand; a second signal leaves at once"
    );
    board.set_phase(DaemonPhase::Stopping);
    stop.send_replace(true);
    reconcile.stop();
    let drained = async {
        let (drained, ..) = futures::join!(futures::future::join_all(kept), batches, by_schedule);
        drained
    };
    tokio::select! {
        drained = drained => {
            if drained.into_iter().all(|pipeline| pipeline.unwrap_or(false)) {
                tracing::info!("stopped: both sinks hold everything that was read");
            } else {
                tracing::info!("stopped; what a sink does not hold is read or counted again at the next start");
            }
        }
        () = tokio::time::sleep(deadline) => {
            tracing::warn!("stopped at the deadline; what was not drained is read again at the next start");
        }
        _ = interrupt.recv() => tracing::warn!("stopped at once; what was not drained is read again at the next start"),
        _ = terminate.recv() => tracing::warn!("stopped at once; what was not drained is read again at the next start"),
    }
    if let Some(console) = console {
        console.stop().await;
    }
    listener.stop().await;
    for arbiter in &arbiters {
        arbiter.stop();
    }
    // Joined on a thread of its own: neither the deadline nor a second signal may wait for one that hangs.
    let (sender, ended) = oneshot::channel();
    std::thread::spawn(move || {
        for arbiter in arbiters {
            // An arbiter ends when its actors have been dropped; a panicked one has nothing more to say.
            let _ = arbiter.join();
        }
        let _ = sender.send(());
    });
    if tokio::time::timeout(THREADS_END, ended).await.is_err() {
        tracing::warn!("a thread of the stream hangs; it ends with the process");
    }
    Ok(())
}

/// Keeps a pipeline's supervisor alive until the daemon stops: one that panicked is made anew, after a pause. Answers
/// whether both sinks hold everything that was read.
async fn keep(setup: Arc<Setup>, mut stopping: watch::Receiver<bool>) -> bool {
    let id = ActorId::new("pipeline", setup.pipeline.name.as_str());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Some(GIVE_UP_AFTER), HEALTHY_AFTER);
    loop {
        let (made, started) = (setup.clone(), Instant::now());
        let (supervisor, ended) = launch(&Arbiter::current(), move |inbox| PipelineSupervisor::new(made, inbox));
        setup.board.actor_lives(&id, supervisor.inbox());
        let how = tokio::select! {
            how = ended => how,
            _ = stopping.wait_for(|stop| *stop) => {
                // An error means that it has ended by itself meanwhile.
                return supervisor.send(StopPipeline).await.unwrap_or(false);
            }
        };
        let Ok(Ended::Panicked(text)) = how else { return false };
        let pause = backoff.next(started.elapsed());
        tracing::error!(
            pipeline = setup.pipeline.name,
            panic = text,
            gives_up = pause.is_none(),
            "supervisor panicked"
        );
        setup.board.actor_failed(&id, text, pause.is_none());
        let Some(pause) = pause else { return false };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stop| *stop) => return false,
        }
    }
}

/// An arbiter whose thread carries a name that tells tools what it does.
fn named(name: &'static std::ffi::CStr) -> Arbiter {
    let arbiter = Arbiter::new();
    arbiter.spawn_fn(move || {
        // SAFETY: the name is a NUL-terminated string that lives for ever; the call names the thread it is made on.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    });
    arbiter
}

/// How many partitions the topic has, where the broker says so in time.
async fn partitions_of(server: &Server, pipeline: &Pipeline, io: &tokio::runtime::Handle) -> usize {
    let (config, topic) = (kafka::settings::client(&server.kafka), pipeline.topic.clone());
    let ask = io.spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().ok()?;
        let metadata = consumer.fetch_metadata(Some(&topic), ASK).ok()?;
        metadata.topics().first().map(|t| t.partitions().len())
    });
    ask.await.ok().flatten().filter(|n| *n > 0).unwrap_or(PARTITIONS)
}

/// Two daemons on one folder would fence each other for ever: the second one does not start.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(data_dir).with_context(|| {
        format!("cannot create data_dir {}; set `data_dir` to a folder that may be written", data_dir.display())
    })?;
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another daemon runs on data_dir {}; stop it, or give this one a `data_dir` of its own",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}; does the file system support locks?", path.display()))
        }
    }
}

/// The instance's lasting name in its consumer groups: made once, kept in the data folder.
fn instance_id(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("instance-id");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) | Err(_) => {
            let id = format!("boathouse-{}", uuid::Uuid::new_v4());
            let fresh = data_dir.join("instance-id.new");
            fs::write(&fresh, &id)
                .and_then(|()| fs::rename(&fresh, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(id)
        }
    }
}

/// Batches come and go by the megabyte; given back to the system each time, they would cost their page faults anew.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        // Threads hand memory to each other here; many arenas would each keep their own.
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
