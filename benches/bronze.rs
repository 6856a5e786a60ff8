//! What Bronze costs: encoding in nanoseconds of thread CPU time per event; a commit and a checkpoint in milliseconds,
//! and what memory they take: `cargo bench --bench bronze`.
//!
//! Batches are what a partition's thread sees: 10,000 events of the seed's kind.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use boathouse::bronze::upkeep::{Upkeep, run_once};
use boathouse::bronze::{Advance, Encoder, Table};
use boathouse::config::Pipeline;
use boathouse::event::{Batch, Decoder, RawBatch, Schema, coded_fields};
use boathouse::kafka::Source;
use boathouse::window::Verdict;

const ROWS: usize = 10_000;
const BATCHES: usize = 50;
const ROUNDS: usize = 7;
const COMMITS: usize = 100;
/// 2026-02-06T14:30:00Z in microseconds.
const NOW: i64 = 1_770_388_200_000_000;

fn main() {
    let pipeline: Pipeline =
        toml_edit::de::from_str(include_str!("../config/pipelines/user_events/pipeline.toml")).expect("a pipeline");
    let pipeline = Pipeline { name: "user_events".into(), ..pipeline };
    let batches = batches(&pipeline);
    encoding(&pipeline, &batches);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(commits(&pipeline, &batches[0]));
}

fn encoding(pipeline: &Pipeline, batches: &[Batch]) {
    let events = (batches.len() * ROWS) as f64;
    let mut encoder = Encoder::new(pipeline).expect("an encoder");
    let mut costs: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| {
            let before = thread_cpu_ns();
            batches.iter().for_each(|batch| encoder.push(batch).expect("encodes"));
            let file = black_box(encoder.seal().expect("seals")).expect("has rows");
            ((thread_cpu_ns() - before) as f64 / events, file.size as f64 / events)
        })
        .collect();
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (cost, size) = costs[costs.len() / 2];
    println!("encoding: {cost:.0} ns of CPU and {size:.1} bytes per event");
}

async fn commits(pipeline: &Pipeline, batch: &Batch) {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let table = Table::open_or_create(uri, pipeline, None).await.expect("a table");
    let mut ledger = table.ledger();
    ledger.acquire(std::slice::from_ref(&batch.source)).await.expect("acquires");
    ledger.genesis(&[(batch.source.clone(), 0)]).await.expect("begins");
    let mut encoder = Encoder::new(pipeline).expect("an encoder");
    let mut took: Vec<f64> = Vec::new();
    for n in 0..COMMITS as i64 {
        encoder.push(batch).expect("encodes");
        let file = encoder.seal().expect("seals").expect("has rows");
        let add = table.write_file(file).await.expect("writes");
        let (from, next_offset) = (n * ROWS as i64, (n + 1) * ROWS as i64);
        let advance = Advance { source: batch.source.clone(), from, next_offset, mark: batch.mark };
        let begun = Instant::now();
        ledger.commit(&[add], &[advance]).await.expect("commits");
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    println!("commit, durable on a local disk: median {:.2} ms, worst {:.2} ms", took[COMMITS / 2], took[COMMITS - 1]);
    let begun = Instant::now();
    let again = Table::open_or_create(uri, pipeline, None).await.expect("opens");
    let acquired = again.ledger().acquire(std::slice::from_ref(&batch.source)).await.expect("acquires");
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    println!("open and acquire after {COMMITS} commits: {ms:.0} ms (version {})", acquired.version);
    let before = resident_mib("VmRSS");
    let done = run_once(&table, &Upkeep { checkpoint_every: 1, clean_log: true }).await.expect("upkeep");
    let (ms, peak) = (done.elapsed.as_millis(), resident_mib("VmHWM"));
    println!(
        "checkpoint after {COMMITS} commits: {ms} ms; resident {before} MiB before, {peak} MiB at the peak of all"
    );
}

/// A figure of /proc/self/status, in MiB.
fn resident_mib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn batches(pipeline: &Pipeline) -> Vec<Batch> {
    let source =
        Arc::new(Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition: 0 });
    let mut decoder = Decoder::new(Schema::new(pipeline), &coded_fields(pipeline));
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let batch = |b: usize| {
        let mut raw = RawBatch::default();
        let from = (b * ROWS) as i64;
        for i in 0..ROWS as i64 {
            let second = (from + i) / 50;
            let at = chrono::DateTime::from_timestamp_micros(NOW + second * 1_000_000).expect("a time");
            let id = format!("{:016x}{:016x}", next(), next());
            let user = next() % 100 + 1;
            let value = format!(
                r#"{{"event_id":"{}-{}-{}-{}-{}","user_id":{user},"event_type":"{}","page":"{}","timestamp":"{}","source":"{}"}}"#,
                &id[..8],
                &id[8..12],
                &id[12..16],
                &id[16..20],
                &id[20..],
                ["login", "click", "click", "click", "purchase", "logout"][next() as usize % 6],
                ["/home", "/products", "/cart", "/checkout", "/account/settings"][next() as usize % 5],
                at.format("%Y-%m-%dT%H:%M:%S"),
                ["web", "mobile"][next() as usize % 2],
            );
            let key = user.to_string();
            raw.push(from + i, NOW / 1000 + second * 1000, Some(key.as_bytes()), Some(value.as_bytes()));
        }
        raw.seal();
        let columns = decoder.decode(raw);
        assert!(columns.errors.is_empty(), "{:?}", columns.errors.first());
        let next = from + ROWS as i64;
        let (mark, received_at) = (Some(NOW), NOW);
        let verdicts = vec![Verdict::Ok; ROWS];
        Batch { source: source.clone(), columns, verdicts, from, next, mark, received_at }
    };
    (0..BATCHES).map(batch).collect()
}

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write a timespec to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "no thread CPU clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
