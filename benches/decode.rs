//! What decoding costs, in nanoseconds of thread CPU time per event: `cargo bench --bench decode`.
//!
//! The cost of an event holds everything up to the finished Arrow arrays and codes. Batches are what a partition's
//! thread sees: 10,000 records in one buffer.

use std::hint::black_box;

use boathouse::config::Pipeline;
use boathouse::event::{Columns, Decoder, RawBatch, Schema, coded_fields};

const ROWS: usize = 10_000;
const BATCHES: usize = 30;
const ROUNDS: usize = 7;

/// How one event is written.
type Form = fn(&Fields) -> String;

fn main() {
    let pipeline: Pipeline =
        toml_edit::de::from_str(include_str!("../config/pipelines/user_events/pipeline.toml")).expect("a pipeline");
    let forms: [(&str, Form); 6] = [
        ("as the seed writes them", seed),
        ("with spaces, as Python's json.dumps", |f| seed(f).replace("\":", "\": ").replace(",\"", ", \"")),
        ("with a fraction and a zone", |f| seed(f).replace("\",\"source", ".123456+00:00\",\"source")),
        ("two orders in turn", |f| if f.user.is_multiple_of(2) { seed(f) } else { reversed(f) }),
        ("one unknown key", |f| seed(f).replace('}', ",\"session\":\"b7d1\"}")),
        ("one escape in ten", |f| if f.user.is_multiple_of(10) { seed(f).replace('/', "\\/") } else { seed(f) }),
    ];
    println!("{:<40} {:>12} {:>12} {:>10}", "events", "general ns", "decoder ns", "bytes");
    for (name, write) in forms {
        let batches = batches(write);
        let bytes = batches.iter().map(|b| b.values.len()).sum::<usize>() / (BATCHES * ROWS);
        let schema = Schema::new(&pipeline);
        let coded = coded_fields(&pipeline);
        let mut decoders = [Decoder::without_scanner(schema.clone(), &coded), Decoder::new(schema, &coded)];
        let [general, decoder] = measure(&mut decoders, &batches);
        println!("{name:<40} {general:>12.1} {decoder:>12.1} {bytes:>10}");
    }
}

/// The median cost of an event for each decoder; rounds in turn, since machines have slow phases.
fn measure<const N: usize>(decoders: &mut [Decoder; N], batches: &[RawBatch]) -> [f64; N] {
    let mut costs = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (decoder, costs) in decoders.iter_mut().zip(&mut costs) {
            let mut total = 0;
            for batch in batches {
                let raw = batch.clone();
                let before = thread_cpu_ns();
                let columns: Columns = black_box(decoder.decode(raw));
                total += thread_cpu_ns() - before;
                assert!(columns.errors.is_empty(), "{:?}", columns.errors.first());
            }
            costs.push(total as f64 / (batches.len() * ROWS) as f64);
        }
    }
    costs.map(|mut c| {
        c.sort_by(f64::total_cmp);
        c[c.len() / 2]
    })
}

struct Fields {
    id: String,
    user: u64,
    kind: &'static str,
    page: &'static str,
    time: String,
    source: &'static str,
}

fn batches(write: fn(&Fields) -> String) -> Vec<RawBatch> {
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut batch = |b: usize| {
        let mut raw = RawBatch::default();
        for i in 0..ROWS {
            let second = (b * ROWS + i) / 50 % 86_400;
            let id = format!("{:016x}{:016x}", next(), next());
            let fields = Fields {
                id: format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]),
                user: next() % 100 + 1,
                kind: ["login", "click", "click", "click", "purchase", "logout"][next() as usize % 6],
                page: ["/home", "/products", "/cart", "/checkout", "/account/settings"][next() as usize % 5],
                time: format!("2026-02-06T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60),
                source: ["web", "mobile"][next() as usize % 2],
            };
            raw.push(i as i64, 0, None, Some(write(&fields).as_bytes()));
        }
        raw.seal();
        raw
    };
    (0..BATCHES).map(&mut batch).collect()
}

fn seed(f: &Fields) -> String {
    let Fields { id, user, kind, page, time, source } = f;
    format!(
        r#"{{"event_id":"{id}","user_id":{user},"event_type":"{kind}","page":"{page}","timestamp":"{time}","source":"{source}"}}"#
    )
}

fn reversed(f: &Fields) -> String {
    let Fields { id, user, kind, page, time, source } = f;
    format!(
        r#"{{"source":"{source}","timestamp":"{time}","page":"{page}","event_type":"{kind}","user_id":{user},"event_id":"{id}"}}"#
    )
}

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write a timespec to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "no thread CPU clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
