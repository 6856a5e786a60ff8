//! Windows against a plain recount: any split into batches, any interleaving of flushes, any plan.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::window::{AggregatePlan, DIMENSION_BYTES_MAX, FlushCells, OTHER, Rebuild, Standing, WindowState};

pub(crate) type Totals = BTreeMap<i64, BTreeMap<Vec<String>, u64>>;

/// Too long for a cell of its own.
static LONG: LazyLock<String> = LazyLock::new(|| "x".repeat(DIMENSION_BYTES_MAX + 1));

/// One record after the other, strings in maps, nothing shared with the code under test.
pub(crate) fn recount(plan: &AggregatePlan, ok: &[&Record]) -> Totals {
    let mut totals = Totals::new();
    for record in ok {
        let texts = record.texts.unwrap();
        let text = |field: usize| texts[field - 2];
        if !plan.filters.iter().all(|f| text(f.field).is_some_and(|t| f.values.iter().any(|v| v == t))) {
            continue;
        }
        let cells = totals.entry(record.time / plan.window * plan.window).or_default();
        let mut key: Vec<String> = plan.dimensions.iter().map(|d| text(d.field).unwrap_or("").into()).collect();
        let overflow = vec![OTHER.to_owned(); key.len()];
        if !key.is_empty() {
            let kept = cells.keys().filter(|k| **k != overflow).count();
            let has_cell = cells.contains_key(&key);
            if key.iter().any(|v| v == OTHER || v.len() > DIMENSION_BYTES_MAX)
                || (!has_cell && kept >= plan.combinations_max)
            {
                key = overflow;
            }
        }
        *cells.entry(key).or_default() += 1;
    }
    totals
}

fn totals_of(state: &WindowState) -> Totals {
    let mut totals = Totals::new();
    for (start, combination, count) in state.totals() {
        let key = combination.values().into_iter().map(str::to_owned).collect();
        totals.entry(start).or_default().insert(key, count);
    }
    totals
}

fn random_pipeline(rng: &mut ChaCha8Rng) -> Pipeline {
    let window = *[1, 10, 60].choose(rng).unwrap();
    let mut aggregate = format!(
        "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\nwindow = \"{}s\"\n",
        window * *[1, 1, 3, 7].choose(rng).unwrap()
    );
    let dimensions: Vec<&str> = TEXTS.into_iter().filter(|_| rng.random_bool(0.4)).collect();
    aggregate.push_str(&format!("dimensions = {dimensions:?}\n"));
    if rng.random_bool(0.5) {
        aggregate.push_str("filter = { kind = [\"b\", \"a\"], source = [\"a\", \"c\", \"d\", \"\"] }\n");
    }
    pipeline(&format!(
        "[time]\nwindow = \"{window}s\"\nbound = \"{}s\"\nallowed_lateness = \"{}s\"\nfuture_guard = \"20s\"\n\
         [realtime]\nmax_combinations = {}\n{aggregate}",
        rng.random_range(0..20),
        rng.random_range(0..60),
        rng.random_range(0..8),
    ))
}

fn random_records(rng: &mut ChaCha8Rng) -> Vec<Record> {
    let values: [&'static str; 8] = ["a", "b", "c", "d", "", OTHER, &LONG, "ä"];
    let spread = rng.random_range(1..=values.len());
    let (mut clock, mut offset) = (1_000_000i64, rng.random_range(0..3));
    (0..rng.random_range(0..250))
        .map(|_| {
            clock += *[0, 0, 0, 1, 3, 15, 200].choose(rng).unwrap();
            offset += *[1, 1, 1, 2, 9].choose(rng).unwrap();
            let ahead = if rng.random_bool(0.05) { 500 } else { 0 };
            let texts = std::array::from_fn(|_| {
                let text = values[rng.random_range(0..spread)];
                rng.random_bool(0.9).then_some(text)
            });
            Record {
                offset,
                time: (clock - rng.random_range(0..60) + ahead) * SECOND + rng.random_range(0..SECOND),
                kafka_ms: clock * 1000,
                texts: rng.random_bool(0.95).then_some(texts),
            }
        })
        .collect()
}

fn check(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pipeline = random_pipeline(&mut rng);
    let plan = Arc::new(AggregatePlan::new(&pipeline, &pipeline.aggregates[0], "e").unwrap());
    let records = random_records(&mut rng);
    let end = records.last().map_or(0, |r| r.offset + 1);
    let mut mark = None;
    let verdicts: Vec<Verdict> = records.iter().map(|r| plain_verdict(&pipeline, r, &mut mark)).collect();
    let ok: Vec<&Record> = records.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::Ok).map(|(r, _)| r).collect();
    let want = recount(&plan, &ok);

    // Live, in batches, with flushes of which some are never acknowledged and some late.
    let mut clock = EventClock::new(&pipeline.time, None);
    let mut state = Rebuild::recount(plan.clone(), Standing { next_offset: 0, mark: None }).finish();
    let (mut served, mut flying) = (Totals::new(), None::<FlushCells>);
    let (mut at, mut from) = (0, 0);
    let serve = |served: &mut Totals, flushed: &FlushCells| {
        for cell in &flushed.cells {
            let key = cell.combination.values().into_iter().map(str::to_owned).collect();
            let total = served.entry(cell.window_start).or_default().entry(key).or_default();
            *total = (*total).max(cell.count);
        }
    };
    while at < records.len() || rng.random_bool(0.5) {
        let to = rng.random_range(at..=records.len().min(at + 60));
        let next = records
            .get(to)
            .map_or(end, |r| rng.random_range(from.max(records[..to].last().map_or(0, |l| l.offset + 1))..=r.offset));
        let batch = batch(&source(0), &mut clock, &records[at..to], from, next);
        assert_eq!(batch.verdicts, verdicts[at..to]);
        state.fold(&batch).unwrap();
        let once = totals_of(&state);
        state.fold(&batch).unwrap();
        assert_eq!(totals_of(&state), once, "a batch was counted twice");
        (at, from) = (to, next);
        if let Some(flushed) = flying.take_if(|_| rng.random_bool(0.5)) {
            serve(&mut served, &flushed);
            state.acknowledge(&flushed);
        }
        if rng.random_bool(0.4) {
            flying = state.snapshot(false);
        }
    }
    if let Some(flushed) = state.snapshot(false) {
        let opened: Vec<u64> = totals_of(&state)
            .iter()
            .filter(|(start, _)| flushed.position.closed_horizon.is_none_or(|h| *start + plan.window > h))
            .flat_map(|(_, cells)| cells.values().copied().collect::<Vec<_>>())
            .collect();
        assert_eq!(
            (flushed.position.open_cells, flushed.position.open_count),
            (opened.len() as u64, opened.iter().sum())
        );
        serve(&mut served, &flushed);
        state.acknowledge(&flushed);
    }
    assert_eq!(served, want, "flushed");
    assert!(state.snapshot(false).is_none(), "nothing is left to flush");
    assert!(state.snapshot(true).is_some(), "but that the partition is idle now");
    // What is left are the open windows, as a recount has them.
    let horizon = plan.closed_horizon(mark);
    let open: Totals = want
        .iter()
        .filter(|(s, _)| horizon.is_none_or(|h| *s + plan.window > h))
        .map(|(s, c)| (*s, c.clone()))
        .collect();
    assert_eq!(totals_of(&state), open, "in memory");

    // From Bronze, in chunks, some handed over twice.
    let mut rebuild = Rebuild::recount(plan.clone(), Standing { next_offset: end, mark });
    let mut from = 0;
    while from < ok.len() {
        let to = rng.random_range(from + 1..=ok.len());
        rebuild.fold_rows(&ok_rows(&ok[from..to])).unwrap();
        if rng.random_bool(0.2) {
            rebuild.fold_rows(&ok_rows(&ok[from..to])).unwrap();
        }
        from = to;
    }
    assert_eq!(totals_of(&rebuild.finish()), want, "recounted from Bronze");

    // The same with little memory: what does not fit is written in between.
    let mut rebuild = Rebuild::recount(plan.clone(), Standing { next_offset: end, mark });
    let bytes_max = rng.random_range(0..6000);
    let mut served = Totals::new();
    for pass in 0.. {
        for chunk in ok.chunks(20) {
            rebuild.fold_rows(&ok_rows(chunk)).unwrap();
            rebuild.shed(bytes_max);
        }
        let Some(spilled) = rebuild.spill() else { break };
        serve(&mut served, &spilled);
        rebuild.spilled(&spilled);
        assert!(pass <= want.len(), "each pass must do at least one window");
    }
    let mut state = rebuild.finish();
    let flushed = state.snapshot(false).unwrap();
    serve(&mut served, &flushed);
    state.acknowledge(&flushed);
    assert_eq!(served, want, "spilled and flushed");
    assert_eq!(totals_of(&state), open, "in memory after spills");
}

#[test]
fn windows_equal_a_plain_recount() {
    for seed in 0..1000 {
        if let Err(panic) = std::panic::catch_unwind(|| check(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn memory_is_bounded_by_the_cap_and_given_back() {
    let pipeline = pipeline(
        "[realtime]\nmax_combinations = 10\n[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"page\"]\n",
    );
    let plan = Arc::new(AggregatePlan::new(&pipeline, &pipeline.aggregates[0], "e").unwrap());
    let mut clock = EventClock::new(&pipeline.time, None);
    let mut state = Rebuild::recount(plan, Standing { next_offset: 0, mark: None }).finish();
    let fold = |state: &mut WindowState, clock: &mut EventClock, from: i64, seconds: i64| {
        let records: Vec<Record> = (from + 1000..from + 2000)
            .map(|offset| {
                let page: &'static str = Box::leak(format!("page {offset}").into_boxed_str());
                let texts = [None, Some(page), None, None, None];
                Record { offset: offset - 1000, time: seconds * SECOND, kafka_ms: seconds * 1000, texts: Some(texts) }
            })
            .collect();
        state.fold(&batch(&source(0), clock, &records, from, from + 1000)).unwrap();
    };
    fold(&mut state, &mut clock, 0, 1000);
    let one_batch = state.memory();
    fold(&mut state, &mut clock, 1000, 1000);
    assert_eq!(state.memory(), one_batch, "new values in a full window need no memory");
    assert_eq!(state.totals().count(), 11);
    assert_eq!(state.totals().map(|t| t.2).sum::<u64>(), 2000);
    fold(&mut state, &mut clock, 2000, 100_000);
    let flushed = state.snapshot(false).unwrap();
    assert_eq!(state.windows(), 2, "a closed window stays until its last total is acknowledged");
    state.acknowledge(&flushed);
    assert_eq!((state.windows(), state.memory()), (1, one_batch));
}

#[test]
fn a_gap_before_a_batch_is_refused() {
    let pipeline = pipeline("[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\n");
    let plan = Arc::new(AggregatePlan::new(&pipeline, &pipeline.aggregates[0], "e").unwrap());
    let mut clock = EventClock::new(&pipeline.time, None);
    let mut state = Rebuild::recount(plan, Standing { next_offset: 5, mark: None }).finish();
    let error = state.fold(&batch(&source(0), &mut clock, &[], 6, 8)).unwrap_err();
    assert!(error.to_string().contains("stands at offset 5, the batch begins at 6"), "{error}");
}

#[test]
fn everything_that_changes_totals_changes_the_definition() {
    let definition = |rest: &str, epoch: &str| {
        let pipeline = pipeline(rest);
        AggregatePlan::new(&pipeline, &pipeline.aggregates[0], epoch).unwrap().definition
    };
    let base = "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"kind\", \"page\"]\n";
    let first = definition(base, "e");
    assert_eq!(first.len(), 12);
    assert_eq!(first, definition(base, "e"));
    assert_eq!(first, definition(&base.replace("\"n\"", "\"m\""), "e"), "the measure's name is the view's business");
    for other in [
        definition(base, "another epoch"),
        definition(&base.replace("\"a\"", "\"b\""), "e"),
        definition(&base.replace("[\"kind\", \"page\"]", "[\"page\", \"kind\"]"), "e"),
        definition(&format!("{base}window = \"5m\"\n"), "e"),
        definition(&format!("{base}filter = {{ kind = [\"x\"] }}\n"), "e"),
        definition(&format!("[realtime]\nmax_combinations = 999\n{base}"), "e"),
        definition(&format!("[time]\nallowed_lateness = \"11m\"\n{base}"), "e"),
    ] {
        assert_ne!(first, other);
    }
}

#[test]
fn names_that_cannot_be_columns_are_refused() {
    let refused = |rest: &str| {
        let pipeline = pipeline(rest);
        AggregatePlan::new(&pipeline, &pipeline.aggregates[0], "e").unwrap_err().to_string()
    };
    for (rest, part) in [
        ("[[aggregate]]\nname = \"a; DROP TABLE x\"\nmeasure = \"n\"\n", "must begin with a letter"),
        ("[[aggregate]]\nname = \"a\"\nmeasure = \"n`\"\n", "must begin with a letter"),
        ("[[aggregate]]\nname = \"windows\"\nmeasure = \"n\"\n", "taken by Boathouse's own tables"),
        ("[[aggregate]]\nname = \"a\"\nmeasure = \"kind\"\ndimensions = [\"kind\"]\n", "cannot name a dimension"),
        (
            "[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"nobody\"]\n",
            "not one of the pipeline's fields",
        ),
        ("[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\ndimensions = [\"at\"]\n", "is no string"),
        ("[[aggregate]]\nname = \"a\"\nmeasure = \"n\"\nwindow = \"61s\"\n", "multiple of `time.window`"),
    ] {
        let message = refused(rest);
        assert!(message.contains(part), "{message}");
    }
}
