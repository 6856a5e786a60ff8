//! `boathouse bench-batch-run`: one run of the graph in a process of its own, each task measured from inside, so that CPU,
//! memory and bytes are those of the run and of nothing else.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::watch;

use crate::actors::keep_freed_memory;
use crate::batch::history::{History, LeaseWatch};
use crate::batch::run::threads;
use crate::batch::run::{Event, Observer, Runner};
use crate::batch::tasks;
use crate::bench::{BatchRun, TaskSample, peak_rss_bytes};
use crate::cli::{Context, Outcome, output};
use crate::serving;
use crate::telemetry::cpu_seconds;

/// Run the batch of the first pipeline once, and print what each task cost.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What has been measured so far.
struct Measured {
    begun: Option<Look>,
    peak_rss_bytes: u64,
    tasks: Vec<TaskSample>,
}

/// A look at this process.
struct Look {
    at: Instant,
    cpu_seconds: f64,
    bytes_read: u64,
    bytes_written: u64,
}

impl Look {
    fn now() -> Self {
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let of = |name: &str| {
            let line = io.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|n| n.parse().ok()).unwrap_or_default()
        };
        Self {
            at: Instant::now(),
            cpu_seconds: cpu_seconds().unwrap_or_default(),
            bytes_read: of("rchar"),
            bytes_written: of("wchar"),
        }
    }
}

fn peak() -> u64 {
    peak_rss_bytes(&fs::read_to_string("/proc/self/status").unwrap_or_default()).unwrap_or_default()
}

impl Measured {
    fn begin(&mut self) {
        self.peak_rss_bytes = self.peak_rss_bytes.max(peak());
        // From here on the kernel's greatest size is this task's; where it will not, it is the greatest so far.
        let _ = fs::write("/proc/self/clear_refs", "5");
        self.begun = Some(Look::now());
    }

    fn end(&mut self, event: &Event<'_>) {
        let (Event::TaskEnded { task, report, .. }, Some(begun)) = (event, self.begun.take()) else { return };
        let now = Look::now();
        let peak_rss_bytes = peak();
        self.peak_rss_bytes = self.peak_rss_bytes.max(peak_rss_bytes);
        self.tasks.push(TaskSample {
            task: task.to_string(),
            wall_seconds: (now.at - begun.at).as_secs_f64(),
            cpu_seconds: now.cpu_seconds - begun.cpu_seconds,
            peak_rss_bytes,
            bytes_read: now.bytes_read - begun.bytes_read,
            bytes_written: now.bytes_written - begun.bytes_written,
            rows_in: report.rows_in,
            rows_out: report.rows_out,
            rows_refused: report.rows_refused,
            rows_duplicate: report.rows_duplicate,
            summary: report.summary.clone(),
        });
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        // As the daemon does, in which the batch runs.
        keep_freed_memory();
        let config = context.config()?;
        let pipeline = config.pipelines.first().context("the configuration has no pipeline")?.clone();
        let server = Arc::new(config.server.clone());
        let measured = Arc::new(Mutex::new(Measured { begun: None, peak_rss_bytes: 0, tasks: Vec::new() }));
        let seen = measured.clone();
        let observer: Observer = Arc::new(move |_, event| {
            let mut measured = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::TaskBegan { .. } => measured.begin(),
                event => measured.end(event),
            }
        });
        let threads = threads::runtime(server.batch.threads).context("cannot start the batch threads")?;
        let begun = Instant::now();
        let run = context.block_on(async {
            let history = History::open(&server).await?;
            let run_id = history.request(&pipeline.name).await?;
            let clickhouse = serving::Client::new(&server.clickhouse)?;
            let runner = Runner {
                history: history.clone(),
                batch: threads.handle().clone(),
                work: tasks::work(&server, &pipeline, &clickhouse),
                observer,
                policy: Runner::policy(&pipeline.schedule),
                time_limit: pipeline.schedule.time_limit,
            };
            let taken = history.take_up(&pipeline.name, "bench", &mut LeaseWatch::default()).await?;
            let (run, lease) = taken.context("another process holds the pipeline's lease")?;
            let (_leave, leaving) = watch::channel(false);
            runner.execute(&run, &lease, leaving).await?;
            history.run(&run_id).await?.context("the run is not in its history")
        })?;
        threads.shutdown_background();
        let measured = measured.lock().unwrap_or_else(PoisonError::into_inner);
        output::json(&BatchRun {
            state: run.state.as_str().into(),
            error: run.error.clone(),
            wall_seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds().unwrap_or_default(),
            peak_rss_bytes: measured.peak_rss_bytes.max(peak()),
            clickhouse_cpu_seconds: 0.0,
            tasks: measured.tasks.clone(),
        })?;
        Ok(Outcome::Right)
    }
}
