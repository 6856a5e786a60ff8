//! Whatever happens in whatever order, the incremental way ends where a run from nothing does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use boathouse::batch::silver::{backfill_silver, run_silver};
use boathouse::batch::{TaskContext, run_gold};
use chrono::{DateTime, Days, NaiveDate};
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::bronze::{NOW, Record, event};
use crate::gold::lakehouse::{Lakehouse, MODELS, seed};
use crate::silver::world::{World, seeds};
use crate::support::soak::say;

/// Longest that a run which is dropped half-way is let go on.
const CUT_AFTER_MS: u64 = 60;
const STEPS: usize = 8;
/// Sequences that go on at the same time: one waits for storage while another computes.
const AT_ONCE: usize = 3;

/// One step of a sequence.
#[derive(Debug)]
enum Step {
    /// Records of every kind: copies, late ones, wrong clocks, no events.
    New(usize),
    /// Events of long ago, on days of their own and of others.
    Late(i64),
    /// Dates before the first event's, after it, or both.
    Backfill(u64, u64),
    Silver,
    Gold,
    /// A run that ends in the middle, at any await.
    Cut(u64),
}

fn any(random: &mut ChaCha8Rng) -> Step {
    match random.random_range(0..12) {
        0..4 => Step::New(random.random_range(1..250)),
        4 => Step::Late(random.random_range(1..5 * 86_400)),
        5 => Step::Backfill(random.random_range(0..4), random.random_range(0..3)),
        6 => Step::Silver,
        7..9 => Step::Cut(random.random_range(0..CUT_AFTER_MS)),
        _ => Step::Gold,
    }
}

struct Sequence {
    world: World,
    gold: Lakehouse,
    late: i64,
}

impl Sequence {
    async fn new() -> Self {
        let mut world = World::in_memory().await;
        world.pipeline.models = seed().models.clone();
        let gold = Lakehouse::at(&world.folder.path().to_string_lossy());
        Self { world, gold, late: 0 }
    }

    async fn run(&self) {
        let task = TaskContext::detached();
        run_silver(&self.world.lake, &self.world.pipeline, &task).await.unwrap_or_else(|e| panic!("{e}"));
        run_gold(&self.world.lake, &self.world.pipeline, &task).await.unwrap_or_else(|e| panic!("{e}"));
    }

    async fn step(&mut self, step: &Step, number: u64) {
        let task = TaskContext::detached();
        match step {
            Step::New(count) => self.world.fill(number, *count).await,
            Step::Late(back) => {
                // Event numbers are seconds; Kafka's time goes on.
                let some = (0..20).map(|i| {
                    self.late += 1;
                    let at = DateTime::from_timestamp_micros(NOW - (back + i * 977) * 1_000_000).expect("a time");
                    let value = format!(
                        r#"{{"event_id":"late{}","user_id":{},"event_type":"purchase","page":"/old","timestamp":"{}","source":"web"}}"#,
                        self.late,
                        self.late % 7,
                        at.format("%Y-%m-%dT%H:%M:%S")
                    );
                    Record { value: Some(value.into_bytes()), ..event(50_000) }
                });
                let some: Vec<Record> = some.collect();
                self.world.commit((self.late % 2) as i32, &some).await;
            }
            Step::Backfill(before, days) => {
                // Refused before silver has read anything; nothing is done then.
                let day: NaiveDate = DateTime::from_timestamp_micros(NOW).expect("a time").date_naive();
                let from = day.checked_sub_days(Days::new(*before)).expect("a date");
                let to = from.checked_add_days(Days::new(*days)).expect("a date");
                let done = backfill_silver(&self.world.lake, &self.world.pipeline, &[], from, to, &task).await;
                assert!(done.as_ref().is_ok() || done.as_ref().is_err_and(|e| !e.is_transient()), "{done:?}");
            }
            Step::Silver => {
                self.world.run().await;
            }
            Step::Gold => self.run().await,
            Step::Cut(after) => {
                let (lake, pipeline) = (self.world.lake.clone(), self.world.pipeline.clone());
                let work = tokio::spawn(async move {
                    let task = TaskContext::detached();
                    run_silver(&lake, &pipeline, &task).await?;
                    run_gold(&lake, &pipeline, &task).await
                });
                tokio::time::sleep(Duration::from_millis(*after)).await;
                work.abort();
                // What it had begun has ended before the next step.
                let _ = work.await;
            }
        }
    }

    async fn tables(&self) -> BTreeMap<String, Vec<String>> {
        let mut tables = BTreeMap::new();
        for model in MODELS {
            tables.insert(model.to_owned(), self.gold.gold(model).await);
        }
        for table in ["silver", "refused"] {
            tables.insert(table.into(), vec![self.world.all_rows(table).await]);
        }
        tables
    }
}

/// Backfills, late data, failures and reruns in any order; then a rerun, and the rows of a run from nothing. Many seeds by
/// `BOATHOUSE_SEEDS`.
#[test]
fn any_sequence_ends_where_a_run_from_nothing_does() {
    let (begun, seeds, next) = (Instant::now(), seeds(3), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime");
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    break;
                }
                runtime.block_on(one(seed));
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("sequences of which nothing is wrong"));
    });
    if seeds > 20 {
        say(&format!("{seeds} random sequences of {STEPS} steps end as a run from nothing, in {:?}", begun.elapsed()));
    }
}

/// The sequence of a seed.
async fn one(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sequence = Sequence::new().await;
    let mut steps = vec![Step::New(200)];
    steps.extend((0..STEPS).map(|_| any(&mut random)));
    for (number, step) in steps.iter().enumerate() {
        sequence.step(step, seed * 100 + number as u64).await;
    }
    sequence.run().await;
    let incremental = sequence.tables().await;
    sequence.world.assert_recounted().await;
    for layer in ["silver", "gold"] {
        std::fs::remove_dir_all(sequence.world.folder.path().join(layer)).expect("a layer removed");
    }
    sequence.run().await;
    let whole = sequence.tables().await;
    for (table, rows) in &whole {
        assert_eq!(rows, &incremental[table], "seed {seed}, {table}, after {steps:?}");
    }
    assert!(whole["user_days"].len() > 10 && !whole["dim_users"].is_empty(), "seed {seed}: too little was there");
}
