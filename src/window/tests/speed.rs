//! What counting costs per event. A bound of several times the usual figure: it notices a change of kind, not of
//! machine.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::window::{AggregatePlan, Rebuild, Standing};

fn nanoseconds_per_event(aggregate: &str) -> f64 {
    let pipeline = pipeline(aggregate);
    let plan = Arc::new(AggregatePlan::new(&pipeline, &pipeline.aggregates[0], "e").unwrap());
    let mut clock = EventClock::new(&pipeline.time, None);
    let kinds = ["login", "click", "purchase", "logout"];
    let records: Vec<Record> = (0..10_000i64)
        .map(|i| {
            // Out of order by up to 3 seconds, over 100 seconds.
            let time = 1_700_000_000 * SECOND + i * 10_000 - (i * 7919 % 300) * 10_000;
            let kind = kinds[(i * 31 % 17 % 4) as usize];
            let source = if i % 3 == 0 { "web" } else { "mobile" };
            Record { offset: i, time, kafka_ms: -1, texts: Some([Some(kind), None, Some(source), None, None]) }
        })
        .collect();
    let mut batch = batch(&source(0), &mut clock, &records, 0, 10_000);
    let mut state = Rebuild::recount(plan, Standing { next_offset: 0, mark: None }).finish();
    let mut best = f64::MAX;
    for _ in 0..50 {
        let began = Instant::now();
        state.fold(&batch).unwrap();
        best = best.min(began.elapsed().as_nanos() as f64 / 10_000.0);
        batch.columns.raw.offsets.iter_mut().for_each(|o| *o += 10_000);
        (batch.from, batch.next) = (batch.next, batch.next + 10_000);
    }
    best
}

#[test]
fn counting_costs_a_few_nanoseconds_an_event() {
    let aggregates = [
        ("one dimension", "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"kind\"]\n"),
        (
            "one dimension and a filter",
            "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"source\"]\nfilter = { kind = [\"login\"] }\n",
        ),
        ("a filter", "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\nfilter = { kind = [\"purchase\"] }\n"),
        ("two dimensions", "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"kind\", \"source\"]\n"),
    ];
    for (what, aggregate) in aggregates {
        let cost = nanoseconds_per_event(aggregate);
        println!("{what}: {cost:.1} ns an event");
        assert!(cost < 60.0, "{what}: {cost:.1} ns an event");
    }
}
