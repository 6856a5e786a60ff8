//! A small lakehouse with a silver table of the test's own making, beside a plain recount of its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use boathouse::batch::{Lake, Layer, silver_columns};
use boathouse::config::{Config, Pipeline};
use chrono::NaiveDate;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;

/// The first day of the rows: a day of the past, so that nothing depends on now.
pub fn day(n: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 2, 1 + n).expect("a date")
}

/// One event: day, hour, user, type, page, source. Its place in the hour is its id.
pub type Event = (u32, u32, i64, &'static str, &'static str, &'static str);

pub struct Lakehouse {
    pub lake: Lake,
    pub pipeline: Arc<Pipeline>,
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
    /// The rows of each hour.
    hours: BTreeMap<(u32, u32), Vec<Event>>,
}

/// The seed's pipeline with its models.
pub fn seed() -> Arc<Pipeline> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boathouse.toml");
    let config = Config::load(Some(&file)).expect("the configuration");
    config.pipelines[0].clone()
}

impl Lakehouse {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lakehouse");
        Self { _folder: Some(folder), ..Self::at(&path.to_string_lossy()) }
    }

    /// A lakehouse that is somebody else's.
    pub fn at(path: &str) -> Self {
        let lake = Lake::at(path, 256 << 20, PathBuf::from(path).join("spill")).expect("a lake");
        Self { lake, pipeline: seed(), path: path.into(), _folder: None, hours: BTreeMap::new() }
    }

    /// The lakehouse's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The recount knows these hours alone from here on.
    pub fn forget_but(&mut self, hours: &[(u32, u32)]) {
        self.hours.retain(|hour, _| hours.contains(hour));
    }

    /// Replaces hours of silver by these rows, in one commit for each hour.
    pub async fn write(&mut self, events: &[Event]) {
        let mut hours: BTreeMap<(u32, u32), Vec<Event>> = BTreeMap::new();
        for event in events {
            hours.entry((event.0, event.1)).or_default().push(*event);
        }
        for (hour, rows) in hours {
            self.replace_hour(hour, rows).await;
        }
    }

    /// Adds rows to hours that keep those they have.
    pub async fn add(&mut self, events: &[Event]) {
        let mut all: Vec<Event> = Vec::new();
        let hours: BTreeSet<(u32, u32)> = events.iter().map(|e| (e.0, e.1)).collect();
        for hour in hours {
            all.extend(self.hours.get(&hour).into_iter().flatten());
            all.extend(events.iter().filter(|e| (e.0, e.1) == hour));
        }
        self.write(&all).await;
    }

    /// Replaces an hour; without rows, it is empty afterwards.
    pub async fn replace_hour(&mut self, hour: (u32, u32), rows: Vec<Event>) {
        let table = match self.lake.open(Layer::Silver, "user_events").await.expect("silver") {
            Some(table) => table,
            None => self.create().await,
        };
        let predicate = format!("event_date = DATE '{}' AND event_hour = {}", day(hour.0), hour.1);
        let batch = self.batch(hour, &rows);
        table
            .write(vec![batch])
            .with_save_mode(SaveMode::Overwrite)
            .with_replace_where(predicate)
            .await
            .expect("rows of silver");
        match rows.is_empty() {
            true => drop(self.hours.remove(&hour)),
            false => drop(self.hours.insert(hour, rows)),
        }
    }

    async fn create(&self) -> deltalake::DeltaTable {
        let schema: StructType = silver_columns(&self.pipeline).as_ref().try_into_kernel().expect("a schema");
        CreateBuilder::new()
            .with_log_store(self.lake.log_store(Layer::Silver, "user_events").expect("a place"))
            .with_columns(schema.fields().cloned())
            .with_partition_columns(["event_date", "event_hour"])
            .await
            .expect("an empty silver table")
    }

    fn batch(&self, hour: (u32, u32), rows: &[Event]) -> RecordBatch {
        let n = rows.len();
        let start = day(hour.0).and_hms_opt(hour.1, 0, 0).expect("a time").and_utc().timestamp_micros();
        let times =
            || TimestampMicrosecondArray::from_iter_values((0..n as i64).map(|i| start + i)).with_timezone("UTC");
        let text = |f: &dyn Fn(usize, &Event) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().enumerate().map(|(i, e)| f(i, e))))
        };
        let days = day(hour.0).signed_duration_since(NaiveDate::default()).num_days() as i32;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("topic", text(&|_, _| "user-events".into())),
            ("generation", Arc::new(Int32Array::from(vec![0; n]))),
            ("partition", Arc::new(Int32Array::from(vec![0; n]))),
            ("offset", Arc::new(Int64Array::from_iter_values(0..n as i64))),
            ("kafka_timestamp", Arc::new(times())),
            ("event_id", text(&|i, e| format!("{}-{}-{i}", e.0, e.1))),
            ("user_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|e| e.2)))),
            ("event_type", text(&|_, e| e.3.into())),
            ("page", text(&|_, e| e.4.into())),
            ("source", text(&|_, e| e.5.into())),
            ("event_time", Arc::new(times())),
            ("time_status", text(&|_, _| "ok".into())),
            ("ingestion_time", Arc::new(times())),
            ("event_date", Arc::new(Date32Array::from(vec![days; n]))),
            ("event_hour", Arc::new(Int32Array::from(vec![hour.1 as i32; n]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)));
        batch.expect("rows")
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.hours.values().flatten()
    }

    /// What the four daily figures should be, each as sorted tab-separated lines.
    pub fn recount(&self) -> [String; 4] {
        let mut users: BTreeMap<NaiveDate, BTreeSet<i64>> = BTreeMap::new();
        let mut buyers: BTreeMap<NaiveDate, BTreeSet<i64>> = BTreeMap::new();
        let mut sources: BTreeMap<(NaiveDate, &str), u64> = BTreeMap::new();
        let mut pages: BTreeMap<(NaiveDate, &str), u64> = BTreeMap::new();
        for (n, _, user, kind, page, source) in self.events() {
            let date = day(*n);
            users.entry(date).or_default().insert(*user);
            *sources.entry((date, source)).or_default() += 1;
            if *kind == "purchase" {
                buyers.entry(date).or_default().insert(*user);
                *pages.entry((date, page)).or_default() += 1;
            }
        }
        let lines = |lines: Vec<String>| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        [
            lines(users.iter().map(|(d, u)| format!("{d}\t{}", u.len())).collect()),
            lines(sources.iter().map(|((d, s), n)| format!("{d}\t{s}\t{n}")).collect()),
            lines(pages.iter().map(|((d, p), n)| format!("{d}\t{p}\t{n}")).collect()),
            lines(
                users
                    .iter()
                    .map(|(d, u)| {
                        let bought = buyers.get(d).map_or(0, BTreeSet::len);
                        format!("{d}\t{}\t{bought}\t{}", u.len(), bought as f64 / u.len() as f64)
                    })
                    .collect(),
            ),
        ]
    }

    /// The rows of a gold table as text, sorted.
    pub async fn gold(&self, model: &str) -> Vec<String> {
        let table = self.lake.open(Layer::Gold, model).await.expect("gold").unwrap_or_else(|| panic!("gold/{model}"));
        let provider = table.table_provider().await.expect("a provider");
        let session = self.lake.session();
        let batches = session.read_table(provider).expect("a frame").collect().await.expect("rows");
        let mut names: Vec<String> =
            table.snapshot().expect("a state").schema().fields().map(|f| f.name().clone()).collect();
        names.sort();
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let cell = |name: &String| {
                    let column = batch.column_by_name(name).expect("a column");
                    arrow::util::display::array_value_to_string(column, row).expect("a value")
                };
                rows.push(names.iter().map(cell).collect::<Vec<_>>().join("|"));
            }
        }
        rows.sort();
        rows
    }
}

/// The shipped models' tables.
pub const MODELS: [&str; 12] = [
    "conversion_rate_daily",
    "daily_active_users",
    "dim_dates",
    "dim_pages",
    "dim_sources",
    "dim_users",
    "events_per_source_daily",
    "fact_events",
    "page_days",
    "purchases_per_page_daily",
    "source_days",
    "user_days",
];

/// Events that look like a small site's: `n` of them, made from a seed.
pub fn events(seed: u64, n: usize, days: std::ops::Range<u32>) -> Vec<Event> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..n)
        .map(|_| {
            let day = days.start + next(u64::from(days.end - days.start)) as u32;
            let kind = ["login", "click", "purchase", "logout"][next(4) as usize];
            let page = ["/home", "/shop", "/cart", "/it's"][next(4) as usize];
            (day, next(24) as u32, next(40) as i64, kind, page, ["web", "mobile"][next(2) as usize])
        })
        .collect()
}
