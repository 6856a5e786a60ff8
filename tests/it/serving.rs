//! Realtime windows in the real engine: what a flush writes, what views answer, and that retries, zombies, stops and
//! outages change no total.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boathouse::config::{self, Pipeline, Secret};
use boathouse::event::{Batch, Codes, Columns, RawBatch};
use boathouse::kafka::Source;
use boathouse::serving::{
    BronzeRows, Client, ErrorKind, PartitionFlush, RECOUNT_BYTES_MAX, RecoverError, Recovery, count, load,
};
use boathouse::window::{
    AggregatePlan, EventClock, MissingCodes, OkRows, PartitionHorizon, Rebuild, RowsWanted, Standing, Verdict, Way,
    WhySure, WindowState, complete_horizon,
};

use crate::support::engine::Engine;

const SECOND: i64 = 1_000_000;
/// 2026-02-06T14:30:00 UTC, in microseconds.
const NOON: i64 = 1_770_388_200 * SECOND;
/// For waits on an engine that comes back.
const PATIENCE: Duration = Duration::from_secs(120);

/// The seed's pipeline, with further aggregates in `rest`.
fn pipeline(name: &str, rest: &str) -> Pipeline {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/pipelines/user_events/pipeline.toml");
    let text = std::fs::read_to_string(file).expect(file) + rest;
    let mut pipeline: Pipeline = toml_edit::de::from_str(&text).expect("the pipeline");
    pipeline.name = name.into();
    pipeline
}

fn settings(engine: &Engine) -> config::ClickHouse {
    config::ClickHouse { url: engine.url.clone(), ..config::ClickHouse::default() }
}

fn client(engine: &Engine) -> Client {
    Client::new(&settings(engine)).expect("a client")
}

fn source(pipeline: &Pipeline, generation: i32, partition: i32) -> Arc<Source> {
    Arc::new(Source {
        pipeline: pipeline.name.as_str().into(),
        topic: pipeline.topic.as_str().into(),
        generation,
        partition,
    })
}

/// Event time in seconds after [`NOON`], event type, source; the offset is the place in the list.
type Event = (i64, &'static str, &'static str);

fn codes<'a>(values: impl Iterator<Item = &'a str>) -> Option<Codes> {
    let mut column = Codes::default();
    for value in values {
        let code = column.values.iter().position(|v| v == value).unwrap_or_else(|| {
            column.values.push(value.into());
            column.values.len() - 1
        });
        column.codes.push(code as u32);
    }
    Some(column)
}

/// Columns by field of the seed's pipeline: event_type is the third, source the sixth.
fn columns(events: &[Event]) -> Vec<Option<Codes>> {
    vec![None, None, codes(events.iter().map(|e| e.1)), None, None, codes(events.iter().map(|e| e.2))]
}

/// One partition as a consumer holds it, beside the Bronze that it commits to.
struct Partition {
    source: Arc<Source>,
    clock: EventClock,
    position: i64,
    states: Vec<WindowState>,
    bronze: Bronze,
}

/// Bronze's `ok` rows of one partition.
#[derive(Default)]
struct Bronze {
    rows: Mutex<Vec<(i64, Event)>>,
}

impl BronzeRows for Bronze {
    async fn standing(&self, source: &Arc<Source>) -> Result<Standing, RecoverError> {
        Err(RecoverError::Bronze(format!("recovery at a given position asks for none ({source})").into()))
    }

    async fn ok_rows(
        &self,
        _: &Source,
        wanted: &RowsWanted,
        _: &[usize],
        each: &mut (dyn FnMut(&OkRows) -> Result<(), MissingCodes> + Send),
    ) -> Result<(), RecoverError> {
        let rows = self.rows.lock().expect("the rows").clone();
        let rows: Vec<_> = rows.iter().filter(|(o, _)| wanted.offsets.contains(o)).collect();
        for chunk in rows.chunks(50) {
            let events: Vec<Event> = chunk.iter().map(|(_, e)| *e).collect();
            each(&OkRows {
                offsets: chunk.iter().map(|(o, _)| *o).collect(),
                event_time: events.iter().map(|e| NOON + e.0 * SECOND).collect(),
                codes: columns(&events),
            })?;
        }
        Ok(())
    }
}

impl Partition {
    /// A new partition, recovered from an empty Bronze and whatever the engine has.
    async fn new(client: &Client, pipeline: &Pipeline, plans: &[Arc<AggregatePlan>], partition: i32) -> Self {
        Self::of(client, pipeline, plans, source(pipeline, 0, partition)).await
    }

    async fn of(client: &Client, pipeline: &Pipeline, plans: &[Arc<AggregatePlan>], source: Arc<Source>) -> Self {
        let mut held = Self {
            source,
            clock: EventClock::new(&pipeline.time, None),
            position: 0,
            states: Vec::new(),
            bronze: Bronze::default(),
        };
        held.recover(client, plans).await;
        held
    }

    fn consume(&mut self, events: &[Event]) {
        let from = self.position;
        let mut raw = RawBatch::default();
        let mut verdicts = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let (offset, time) = (from + index as i64, NOON + event.0 * SECOND);
            raw.push(offset, time / 1000, None, Some(event.1.as_bytes()));
            let verdict = self.clock.judge(time, time / 1000);
            if verdict == Verdict::Ok {
                self.bronze.rows.lock().expect("the rows").push((offset, *event));
            }
            verdicts.push(verdict);
        }
        raw.seal();
        self.position = from + events.len() as i64;
        let columns = Columns {
            raw,
            fields: Vec::new(),
            event_time: events.iter().map(|e| NOON + e.0 * SECOND).collect(),
            errors: Vec::new(),
            keep_payload: vec![false; events.len()],
            codes: columns(events),
        };
        let batch = Batch {
            source: self.source.clone(),
            columns,
            verdicts,
            from,
            next: self.position,
            mark: self.clock.mark(),
            received_at: 0,
        };
        for state in &mut self.states {
            state.fold(&batch).expect("no gap");
        }
    }

    fn flushes(&self, idle: bool) -> Vec<PartitionFlush> {
        let flush = |state: &WindowState| {
            let cells = state.snapshot(idle)?;
            Some(PartitionFlush { source: self.source.clone(), plan: state.plan().clone(), cells })
        };
        self.states.iter().filter_map(flush).collect()
    }

    async fn flush(&mut self, client: &Client) {
        let flushes = self.flushes(false);
        for (flush, answer) in flushes.iter().zip(client.flush(&flushes).await) {
            answer.expect("a flush");
            let state = self.states.iter_mut().find(|s| s.plan() == &flush.plan).expect("its state");
            state.acknowledge(&flush.cells);
        }
    }

    /// The states at the position, which Bronze has reached; which way each came back.
    async fn recover(&mut self, client: &Client, plans: &[Arc<AggregatePlan>]) -> Vec<Way> {
        let at = Standing { next_offset: self.position, mark: self.clock.mark() };
        let plans: Vec<_> = plans.iter().cloned().enumerate().collect();
        let recovery = Recovery {
            store: client,
            bronze: &self.bronze,
            source: &self.source,
            now: NOON,
            bytes_max: RECOUNT_BYTES_MAX,
        };
        let recovered = recovery.fast(&plans, at, i64::MAX).await.expect("the states");
        let ways = recovered.iter().map(|(_, back)| back.way.clone()).collect();
        self.states = recovered.into_iter().map(|(_, back)| back.state).collect();
        ways
    }
}

/// `events` seconds apart, from `from` seconds on, of all types and sources.
fn events(from: i64, seconds_apart: i64, number: i64) -> Vec<Event> {
    let types = ["login", "click", "purchase", "logout", "click"];
    (0..number)
        .map(|i| (from + i * seconds_apart, types[(i % 5) as usize], if i % 3 == 0 { "web" } else { "mobile" }))
        .collect()
}

/// The answer as `a b c` lines.
fn lines(engine: &Engine, sql: &str) -> Vec<String> {
    engine.sql(sql).lines().map(|l| l.replace('\t', " ")).collect()
}

/// Every total of the three views, in one text.
fn totals(engine: &Engine) -> Vec<String> {
    let mut all =
        lines(engine, "SELECT 'e', window_start, event_type, event_count FROM realtime.events_per_minute ORDER BY ALL");
    all.extend(lines(
        engine,
        "SELECT 'l', window_start, source, login_count FROM realtime.logins_per_source ORDER BY ALL",
    ));
    all.extend(lines(
        engine,
        "SELECT 'p', window_start, purchase_count FROM realtime.purchases_per_minute ORDER BY ALL",
    ));
    all
}

/// What the totals must be: a plain recount of the partitions' Bronze.
fn recount(partitions: &[&Partition]) -> Vec<String> {
    let mut cells: BTreeMap<(&str, i64, &str), u64> = BTreeMap::new();
    for partition in partitions {
        for (_, event) in partition.bronze.rows.lock().expect("the rows").iter() {
            let start = (NOON + event.0 * SECOND).div_euclid(60 * SECOND) * 60;
            *cells.entry(("e", start, event.1)).or_default() += 1;
            match event.1 {
                "login" => *cells.entry(("l", start, event.2)).or_default() += 1,
                "purchase" => *cells.entry(("p", start, "")).or_default() += 1,
                _ => {}
            }
        }
    }
    let text = |((view, start, key), count): ((&str, i64, &str), u64)| {
        let time = chrono::DateTime::from_timestamp(start, 0).expect("a time").format("%Y-%m-%d %H:%M:%S");
        if view == "p" { format!("{view} {time} {count}") } else { format!("{view} {time} {key} {count}") }
    };
    cells.into_iter().map(text).collect()
}

async fn prepared(engine: &Engine) -> (Client, Pipeline, Vec<Arc<AggregatePlan>>) {
    let (client, pipeline) = (client(engine), pipeline("user_events", ""));
    let plans = AggregatePlan::all(&pipeline, "epoch 1").expect("the plans");
    client.prepare("user_events", &plans).await.expect("tables and views");
    (client, pipeline, plans)
}

/// The shape that dashboards are written against, and tables that can be made any number of times.
#[tokio::test(flavor = "multi_thread")]
async fn tables_and_views_have_the_names_and_columns_promised() {
    let engine = Engine::start();
    let (client, _, plans) = prepared(&engine).await;
    client.prepare("user_events", &plans).await.expect("a second time");
    let described = lines(
        &engine,
        "SELECT table, name, type FROM system.columns WHERE database = 'realtime' AND table IN \
         ('events_per_minute', 'logins_per_source', 'purchases_per_minute', 'windows') ORDER BY table, position FORMAT TSVRaw",
    );
    assert_eq!(
        described,
        [
            "events_per_minute window_start DateTime('UTC')",
            "events_per_minute event_type String",
            "events_per_minute event_count UInt64",
            "logins_per_source window_start DateTime('UTC')",
            "logins_per_source source String",
            "logins_per_source login_count UInt64",
            "purchases_per_minute window_start DateTime('UTC')",
            "purchases_per_minute purchase_count UInt64",
            "windows pipeline String",
            "windows window_start DateTime('UTC')",
            "windows complete Bool",
        ]
    );
    let applied = "SELECT version, count() FROM realtime.migrations GROUP BY version ORDER BY version";
    assert_eq!(lines(&engine, applied), ["1 1", "2 1", "3 1"]);
    assert_eq!(engine.sql("SELECT count() FROM realtime.windows"), "0\n");
    // A table that was dropped by hand is made again.
    engine.sql("DROP TABLE realtime.positions");
    client.prepare("user_events", &plans).await.expect("a third time");
    assert_eq!(engine.sql("SELECT count() FROM realtime.positions"), "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_a_recount_over_flushes_retries_and_restarts() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut one = Partition::new(&client, &pipeline, &plans, 0).await;
    let mut two = Partition::new(&client, &pipeline, &plans, 1).await;
    for round in 0..6 {
        one.consume(&events(round * 300, 7, 40));
        two.consume(&events(round * 300 + 5, 11, 30));
        let (mut both, held) = (one.flushes(false), two.flushes(false));
        both.extend(held);
        // The same flush again: an insert whose answer was lost.
        for _ in 0..2 {
            assert!(client.flush(&both).await.iter().all(Result::is_ok));
        }
        assert_eq!(totals(&engine), recount(&[&one, &two]), "round {round}");
        one.flush(&client).await;
        two.flush(&client).await;
        let ways = one.recover(&client, &plans).await;
        assert_eq!(ways, [Way::Fast, Way::Fast, Way::Fast], "round {round}");
    }
    assert!(one.states.iter().all(|s| s.windows() <= 12), "closed windows are forgotten");

    // A flush that stops between partials and positions: the sure way, and the totals stay right.
    one.consume(&events(1800, 3, 50));
    let flushes = one.flushes(false);
    engine.sql("RENAME TABLE realtime.positions TO realtime.positions_kept");
    let answers = client.flush(&flushes).await;
    assert!(answers.iter().all(|a| a.as_ref().is_err_and(|e| e.kind == ErrorKind::Missing)), "{answers:?}");
    engine.sql("RENAME TABLE realtime.positions_kept TO realtime.positions");
    let ways = one.recover(&client, &plans).await;
    assert!(matches!(ways[0], Way::Sure(_)), "{ways:?}");
    one.flush(&client).await;
    assert_eq!(totals(&engine), recount(&[&one, &two]));
    // Intents of the flush that stopped are known, so that the log can be asked whether it still has the record.
    one.consume(&events(2000, 1, 5));
    let begun = one.position;
    engine.sql("RENAME TABLE realtime.positions TO realtime.positions_kept");
    client.flush(&one.flushes(false)).await;
    engine.sql("RENAME TABLE realtime.positions_kept TO realtime.positions");
    let mut claims = Vec::new();
    for plan in &plans {
        claims.extend(load(&client, &one.source, plan).await.expect("a load").claims_above(begun - 5));
    }
    assert_eq!(claims.len(), 3, "one for each aggregate: {claims:?}");
    assert!(claims.iter().all(|c| c.next_offset == begun && c.last.is_some_and(|l| l.offset == begun - 1)));
    assert_eq!(client.claims_above(&one.source, &plans, begun - 5).await.expect("claims"), claims);
    assert!(client.claims_above(&one.source, &plans, begun).await.expect("claims").is_empty());
}

/// A writer that was thought dead comes back with an older position.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_loses() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    held.consume(&events(0, 1, 100));
    let stalled = held.flushes(false);
    held.consume(&events(100, 1, 100));
    held.flush(&client).await;
    let right = totals(&engine);
    assert_eq!(right, recount(&[&held]));
    assert!(client.flush(&stalled).await.iter().all(Result::is_ok), "it is not even refused");
    assert_eq!(totals(&engine), right);
    engine.sql(&format!("OPTIMIZE TABLE realtime.{} FINAL", plans[0].partials_table()));
    engine.sql("OPTIMIZE TABLE realtime.positions FINAL");
    assert_eq!(totals(&engine), right, "after a merge");
    let ways = held.recover(&client, &plans).await;
    assert_eq!(ways, [Way::Fast, Way::Fast, Way::Fast]);
}

/// ClickHouse is ahead of Bronze when the daemon died before Bronze's commit: nothing is written until the position is
/// there again, and nothing is counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_behind_clickhouse_waits_for_its_position() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    held.consume(&events(0, 2, 60));
    let (bronze_at, mark) = (held.position, held.clock.mark());
    let bronze_rows = held.bronze.rows.lock().expect("the rows").clone();
    held.consume(&events(120, 2, 60));
    held.flush(&client).await;
    let right = totals(&engine);

    // The daemon is back at Bronze's position.
    held.position = bronze_at;
    held.clock = EventClock::new(&pipeline.time, mark);
    held.bronze = Bronze { rows: Mutex::new(bronze_rows) };
    let ways = held.recover(&client, &plans).await;
    assert_eq!(ways, [Way::Fast, Way::Fast, Way::Fast]);
    assert!(held.flushes(false).is_empty(), "below the floor");
    let again = events(120, 2, 60);
    held.consume(&again[..20]);
    assert!(held.flushes(false).is_empty(), "still below the floor");
    held.consume(&again[20..]);
    held.flush(&client).await;
    assert_eq!(totals(&engine), right);
    held.consume(&events(240, 2, 10));
    held.flush(&client).await;
    assert_eq!(totals(&engine), recount(&[&held]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_aggregate_is_built_beside_the_old_one_and_takes_over_at_once() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    held.consume(&events(0, 5, 500));
    held.flush(&client).await;

    // The same aggregates under other settings, with a fourth.
    let fourth = "\n[[aggregate]]\nname = \"by_type_and_source\"\nmeasure = \"n\"\nwindow = \"5m\"\n\
                  dimensions = [\"event_type\", \"source\"]\n";
    let pipeline = self::pipeline("user_events", fourth);
    let plans_after = AggregatePlan::all(&pipeline, "epoch 2").expect("the plans");
    client.prepare("user_events", &plans_after).await.expect("tables beside the old ones");
    let shown = client.view("events_per_minute").await.expect("a view").expect("of ours");
    assert_eq!(shown.definition, plans[0].definition, "the view stays until the new totals are there");
    let ways = held.recover(&client, &plans_after).await;
    assert!(ways.iter().all(|w| matches!(w, Way::Sure(_))), "{ways:?}");
    held.flush(&client).await;
    for plan in &plans_after {
        assert_eq!(client.positions(plan).await.expect("positions"), [((*held.source).clone(), 500)]);
        let new = plan.name == "by_type_and_source";
        assert_eq!(client.point_view(plan).await.expect("a view"), !new, "{}", plan.name);
        assert!(!client.point_view(plan).await.expect("a view"), "nothing to do");
        assert_eq!(client.drop_superseded(plan).await.expect("the old tables").len(), usize::from(!new));
    }
    assert_eq!(totals(&engine), recount(&[&held]));
    let per_window = "SELECT sum(n), countDistinct(event_type, source), min(toMinute(window_start) % 5) = 0 \
                      FROM realtime.by_type_and_source";
    assert_eq!(lines(&engine, per_window), ["500 8 1"]);
    assert_eq!(engine.sql("SELECT uniqExact(window_start) = count() FROM realtime.windows"), "1\n");

    // An aggregate that is gone from the configuration has no view any more.
    client.prepare("user_events", &plans_after[..3]).await.expect("a configuration without it");
    assert!(client.view("by_type_and_source").await.expect("no view").is_none());
}

/// The table of a definition goes when its view changes over; its positions stay, and must not vouch for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_that_is_changed_and_changed_back_has_its_whole_history() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    held.consume(&events(0, 5, 500));
    held.flush(&client).await;
    let other = AggregatePlan::all(&pipeline, "epoch 2").expect("the plans");
    client.prepare("user_events", &other).await.expect("tables beside the old ones");
    held.recover(&client, &other).await;
    held.flush(&client).await;
    for plan in &other {
        client.point_view(plan).await.expect("a view");
        assert_eq!(client.drop_superseded(plan).await.expect("the old table").len(), 1);
    }
    client.prepare("user_events", &plans).await.expect("the first tables again");
    assert!(client.positions(&plans[0]).await.expect("positions").is_empty(), "those of a table that is gone");
    let ways = held.recover(&client, &plans).await;
    assert!(ways.iter().all(|way| *way == Way::Sure(WhySure::AnotherTable)), "{ways:?}");
    held.flush(&client).await;
    for plan in &plans {
        assert_eq!(client.positions(plan).await.expect("positions"), [((*held.source).clone(), 500)]);
        client.point_view(plan).await.expect("a view");
    }
    assert_eq!(totals(&engine), recount(&[&held]));
    assert_eq!(held.recover(&client, &plans).await, [Way::Fast, Way::Fast, Way::Fast]);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_complete_when_no_busy_partition_can_add_to_them() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut one = Partition::new(&client, &pipeline, &plans, 0).await;
    let mut two = Partition::new(&client, &pipeline, &plans, 1).await;
    one.consume(&events(0, 10, 200)); // up to 1990 s
    two.consume(&events(0, 10, 100)); // up to 990 s
    one.flush(&client).await;
    two.flush(&client).await;
    let complete = || {
        let sql = "SELECT max(window_start) FROM realtime.windows WHERE complete AND pipeline = 'user_events'";
        let end = engine.sql(&format!("SELECT toUnixTimestamp(({sql})) + 60")).trim().parse::<i64>().expect("a time");
        end * SECOND
    };
    let horizon = |idle: [bool; 2]| {
        let of = |p: &Partition, idle| PartitionHorizon { closed_horizon: p.states[0].closed_horizon(), idle };
        complete_horizon(&[of(&one, idle[0]), of(&two, idle[1])]).expect("a horizon").div_euclid(60 * SECOND)
            * 60
            * SECOND
    };
    assert_eq!(complete(), horizon([false, false]));
    // 990 s − 30 s − 600 s: windows that end by then.
    assert_eq!(complete(), NOON + 360 * SECOND);
    let idle = two.flushes(true);
    assert_eq!(idle.len(), 3, "a partition that became idle says so");
    assert!(client.flush(&idle).await.iter().all(Result::is_ok));
    assert_eq!(complete(), horizon([false, true]));
    assert!(client.flush(&one.flushes(true)).await.iter().all(Result::is_ok));
    assert_eq!(complete(), horizon([true, true]), "time does not go on by itself");
    // A partition without any event holds everything back until it is idle.
    let three = Partition::new(&client, &pipeline, &plans, 2).await;
    assert!(client.flush(&three.flushes(false)).await.iter().all(Result::is_ok));
    assert_eq!(engine.sql("SELECT countIf(complete) FROM realtime.windows"), "0\n");
    assert!(client.flush(&three.flushes(true)).await.iter().all(Result::is_ok));
    assert_eq!(complete(), horizon([true, true]));
    // An old generation counts in totals, not here.
    let mut adopted = Partition::of(&client, &pipeline, &plans, source(&pipeline, 1, 0)).await;
    adopted.consume(&events(3000, 1, 10));
    adopted.flush(&client).await;
    let newest = adopted.states[0].closed_horizon().expect("a horizon").div_euclid(60 * SECOND) * 60 * SECOND;
    assert!(newest > NOON + 1990 * SECOND, "everything before is complete");
    assert_eq!(engine.sql("SELECT countIf(NOT complete) FROM realtime.windows"), "1\n");
    assert_eq!(totals(&engine), recount(&[&one, &two, &adopted]));
}

#[tokio::test(flavor = "multi_thread")]
async fn combinations_beyond_the_cap_are_counted_together() {
    let engine = Engine::start();
    let client = client(&engine);
    let mut pipeline = pipeline("user_events", "");
    pipeline.realtime.max_combinations = 2;
    let plans = AggregatePlan::all(&pipeline, "epoch").expect("the plans");
    client.prepare("user_events", &plans).await.expect("tables");
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    held.consume(&[(0, "a", "web"), (1, "b'`\\", "web"), (2, "c", "web"), (3, "__other__", "web"), (4, "a", "web")]);
    held.flush(&client).await;
    let sql = "SELECT event_type, event_count FROM realtime.events_per_minute ORDER BY event_type FORMAT TSVRaw";
    assert_eq!(lines(&engine, sql), ["__other__ 2", "a 2", "b'`\\ 1"]);
    // The combinations that are kept are known again after a restart.
    assert_eq!(held.recover(&client, &plans).await, [Way::Fast, Way::Fast, Way::Fast]);
    held.consume(&[(5, "d", "web"), (6, "a", "web")]);
    held.flush(&client).await;
    assert_eq!(lines(&engine, sql), ["__other__ 3", "a 3", "b'`\\ 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_beyond_the_retention_are_dropped_whole() {
    let engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    const DAY: i64 = 86_400;
    // 130 days: more than one insert may span.
    let wide: Vec<Event> = (0..130).map(|day| (day * DAY, "purchase", "web")).collect();
    held.consume(&wide);
    held.flush(&client).await;
    assert_eq!(totals(&engine), recount(&[&held]));
    let now = NOON + 129 * DAY * SECOND;
    let dropped = client.drop_expired(&plans[2], now).await.expect("a drop");
    assert_eq!(dropped.len(), 99, "{dropped:?}");
    assert_eq!(dropped[0], "20260206");
    let sql =
        "SELECT count(), dateDiff('day', min(window_start), max(window_start)) FROM realtime.purchases_per_minute";
    assert_eq!(lines(&engine, sql), ["31 30"]);
    assert!(client.drop_expired(&plans[2], now).await.expect("a drop").is_empty());
    // A rebuild leaves out what would be dropped.
    let keep_from = plans[2].keep_from(now);
    let at = Standing { next_offset: held.position, mark: held.clock.mark() };
    let rebuild = Rebuild::new(plans[2].clone(), at, Default::default(), keep_from);
    let recovered =
        count(&client, &held.bronze, &held.source, vec![rebuild], RECOUNT_BYTES_MAX).await.expect("a recount");
    assert_eq!(recovered[0].state.totals().count(), 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_down_or_refuses_says_which() {
    let mut engine = Engine::start();
    let (client, pipeline, plans) = prepared(&engine).await;
    let client = client.with_request_limit(Duration::from_secs(60));
    let mut held = Partition::new(&client, &pipeline, &plans, 0).await;
    held.consume(&events(0, 1, 50));
    held.flush(&client).await;

    // The engine's own user has no password, and takes any.
    let wrong = config::ClickHouse { user: "nobody".into(), password: Secret::new("wrong"), ..settings(&engine) };
    let refused = Client::new(&wrong).expect("a client");
    let error = refused.ping().await.expect_err("a wrong password");
    assert_eq!(error.kind, ErrorKind::Auth, "{error}");
    assert!(error.to_string().contains("clickhouse.password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "the password shows: {error}");
    let answers = refused.flush(&held.flushes(true)).await;
    assert!(answers.iter().all(|a| a.as_ref().is_err_and(|e| e.kind == ErrorKind::Auth)), "{answers:?}");

    engine.kill();
    held.consume(&events(50, 1, 50));
    let flushes = held.flushes(false);
    let answers = client.flush(&flushes).await;
    assert!(answers.iter().all(|a| a.as_ref().is_err_and(|e| e.kind == ErrorKind::Unavailable)), "{answers:?}");
    engine.restart();
    let waited = std::time::Instant::now();
    while client.ping().await.is_err() {
        assert!(waited.elapsed() < PATIENCE, "the engine did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    held.flush(&client).await;
    assert_eq!(totals(&engine), recount(&[&held]), "nothing was lost over the kill, nothing counted twice");

    // The server lost its disk: tables are made again, totals come from Bronze.
    engine.sql("DROP DATABASE realtime SYNC");
    held.consume(&events(100, 1, 50));
    let answers = client.flush(&held.flushes(false)).await;
    assert!(answers.iter().all(|a| a.as_ref().is_err_and(|e| e.kind == ErrorKind::Missing)), "{answers:?}");
    client.prepare("user_events", &plans).await.expect("tables again");
    held.recover(&client, &plans).await;
    held.flush(&client).await;
    assert_eq!(totals(&engine), recount(&[&held]));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_changed_by_hand_are_refused_with_what_to_do() {
    let engine = Engine::start();
    let (client, _, plans) = prepared(&engine).await;
    engine.sql(&format!("ALTER TABLE realtime.{} ADD COLUMN note String", plans[0].partials_table()));
    let refused = client.prepare("user_events", &plans).await.expect("the others are ready");
    let [(0, error)] = &refused[..] else { panic!("the changed one alone: {refused:?}") };
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.to_string().contains("drop it, and it is made again"), "{error}");
    engine.sql(&format!("DROP TABLE realtime.{} SYNC", plans[0].partials_table()));
    assert!(client.prepare("user_events", &plans).await.expect("made again").is_empty());

    engine.sql("CREATE TABLE realtime.mine (x Int8) ENGINE = Memory");
    let taken = pipeline("other", "\n[[aggregate]]\nname = \"mine\"\nmeasure = \"n\"\n");
    let plan = AggregatePlan::new(&taken, &taken.aggregates[3], "e").expect("a plan");
    let refused = client.prepare("other", &[Arc::new(plan)]).await.expect("the others, of which there are none");
    let [(0, error)] = &refused[..] else { panic!("a table of somebody else: {refused:?}") };
    assert!(error.to_string().contains("rename it or the aggregate"), "{error}");
    assert_eq!(engine.sql("SELECT count() FROM realtime.mine"), "0\n");

    engine.sql("DROP TABLE realtime.intents SYNC");
    engine.sql("CREATE TABLE realtime.intents (pipeline String) ENGINE = MergeTree ORDER BY pipeline");
    let error = client.prepare("user_events", &plans).await.expect_err("a foreign table of intents");
    assert!(error.to_string().contains("realtime.intents is not as it was made"), "{error}");
}

#[test]
fn a_wrong_address_or_password_file_is_refused_at_once() {
    let refused = |change: &dyn Fn(&mut config::ClickHouse)| {
        let mut settings = config::ClickHouse::default();
        change(&mut settings);
        Client::new(&settings).expect_err("a wrong setting").to_string()
    };
    assert!(refused(&|c| c.url = "127.0.0.1:8123".into()).contains("clickhouse.url"));
    assert!(refused(&|c| c.url = "ftp://x".into()).contains("must begin with http"));
    assert!(refused(&|c| c.password_file = Some("/nowhere/password".into())).contains("/nowhere/password"));
}
