//! What a run of silver has to do, as the tables' own logs say: read the facts, let the planner decide, list the files.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate};
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::{delta_schema, refused_schema, silver_schema};
use super::judge::SourceFile;
use super::reasons::{Quarantine, canonical};
use super::{EVENT_DATE, EVENT_HOUR};
use crate::batch::BatchError;
use crate::batch::changes::{Changes, LogRange, changes};
use crate::batch::hour::Hour;
use crate::batch::lake::{Lake, Layer, refused_table};
use crate::batch::mark::{Marked, replaced};
use crate::batch::plan::{Course, Decision, LogFacts, SourceFacts, decide};
use crate::batch::scan::DataFile;
use crate::batch::target::{Definition, TableFile, Target};
use crate::batch::upkeep::retention::bronze_horizon;
use crate::bronze::PARTITION_COLUMN;
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;

/// Raised when the rows of silver would come out differently from the same Bronze, so that it is made anew.
const SILVER_VERSION: u32 = 1;

/// How the operator calls Bronze in reasons.
const BRONZE: &str = "Bronze";

/// Bronze, pinned at a version.
pub struct Bronze {
    pub store: LogStoreRef,
    pub facts: SourceFacts,
    /// The version, as those who read it note it.
    pub marked: Marked,
    table: DeltaTable,
}

/// The facts of a run, the decisions, and the files that it reads.
pub struct Work {
    pub bronze: Bronze,
    pub silver: Target,
    pub refused: Target,
    pub silver_course: Decision,
    pub refused_course: Decision,
    /// In the order of their ingestion dates.
    pub files: Vec<SourceFile>,
    /// Where a table is made from scratch although Bronze no longer has all that it was made from: the first ingestion date
    /// that Bronze has whole. What is older stays in the table.
    pub silver_since: Option<NaiveDate>,
    pub refused_since: Option<NaiveDate>,
    /// Where silver is made new although Bronze has lost old dates: the first event date that Bronze gives whole. Silver
    /// begins there, as if retention had taken what is earlier, of which gold keeps what it has.
    pub begins: Option<NaiveDate>,
}

/// What the two tables are.
pub struct Definitions {
    pub silver: Definition,
    pub refused: Definition,
}

impl Definitions {
    /// Those of a pipeline with its own expectations.
    pub fn of(pipeline: &Pipeline) -> Result<Self, BatchError> {
        Ok(Self::new(pipeline, &Quarantine::of(pipeline)?))
    }

    pub fn new(pipeline: &Pipeline, quarantine: &[Quarantine]) -> Self {
        let silver_partition = [(EVENT_DATE, "date"), (EVENT_HOUR, "integer")];
        let silver_schema = delta_schema(&silver_schema(pipeline), &silver_partition);
        let refused_schema = delta_schema(&refused_schema(pipeline), &[(PARTITION_COLUMN, "date")]);
        let rules = canonical(pipeline, quarantine);
        let settings = |schema: &str| {
            let all = json!({"version": SILVER_VERSION, "schema": schema, "rules": rules});
            let digest = Sha256::digest(all.to_string().as_bytes());
            digest.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>()
        };
        Self {
            silver: Definition {
                name: format!("silver.{}", pipeline.name),
                settings: settings(&silver_schema),
                schema: silver_schema,
                partition_columns: vec![EVENT_DATE.into(), EVENT_HOUR.into()],
            },
            refused: Definition {
                name: format!("silver.{}", refused_table(&pipeline.name)),
                settings: settings(&refused_schema),
                schema: refused_schema,
                partition_columns: vec![PARTITION_COLUMN.into()],
            },
        }
    }
}

impl Bronze {
    /// The newest version of a pipeline's Bronze; none where there is no table.
    pub async fn pin(lake: &Lake, pipeline: &Pipeline) -> Result<Option<Self>, BatchError> {
        Self::at(lake, pipeline, None).await
    }

    /// A version of a pipeline's Bronze, the newest if none is given.
    pub async fn at(lake: &Lake, pipeline: &Pipeline, version: Option<u64>) -> Result<Option<Self>, BatchError> {
        let Some(mut table) = lake.open(Layer::Bronze, &pipeline.name).await? else { return Ok(None) };
        let name = format!("bronze.{}", pipeline.name);
        let failed = |e: DeltaTableError| BatchError::unavailable(format!("table {name} cannot be loaded"), e);
        if let Some(version) = version {
            table.load_version(version).await.map_err(failed)?;
        }
        let state = table.snapshot().map_err(failed)?;
        let facts =
            SourceFacts { name: BRONZE.into(), table_id: state.metadata().id().into(), version: state.version() };
        let store = table.log_store();
        let marked = Marked::read(&store, facts.version).await?;
        Ok(Some(Self { store, facts, marked, table }))
    }

    /// All files of the version.
    pub async fn files(&self) -> Result<Vec<SourceFile>, BatchError> {
        let failed = |e: DeltaTableError| BatchError::unavailable("the files of Bronze cannot be listed", e);
        let mut files = Vec::new();
        let mut views = self.table.snapshot().map_err(failed)?.snapshot().file_views(self.store.as_ref(), None);
        while let Some(view) = views.try_next().await.map_err(failed)? {
            let values = view.partition_values_map();
            let stats = Stats::read(view.stats().as_deref());
            files.push(SourceFile {
                file: self.file(view.object_store_path().to_string(), view.size() as u64),
                ingestion_date: values.get(PARTITION_COLUMN).cloned().flatten().unwrap_or_default(),
                event_times: stats.event_times(),
                for_silver: false,
                for_refused: false,
            });
        }
        Ok(files)
    }

    fn file(&self, path: String, size: u64) -> DataFile {
        DataFile { store: self.store.object_store(None), path, size }
    }

    /// What entered the table after a version with this mark, and what the planner must know of it.
    async fn log(&self, (after, mark): Seen) -> Result<(LogFacts, Changes), BatchError> {
        if replaced(&self.store, after, mark).await? {
            return Ok((LogFacts::Replaced, Changes::default()));
        }
        let changes = match changes(&self.store, after, self.facts.version).await? {
            LogRange::Gap(version) => return Ok((LogFacts::Gap(version), Changes::default())),
            LogRange::Whole(changes) => changes,
        };
        let mut gone = None;
        for file in changes.added.iter().filter(|f| changes.taken_out.contains(&f.path)) {
            if !self.file(file.path.clone(), file.size).exists().await? {
                gone = Some(file.path.clone());
                break;
            }
        }
        let rows_removed_at = changes.removed.iter().map(|f| f.version).min();
        Ok((LogFacts::Read { rows_removed_at, gone }, changes))
    }

    /// The files that entered after the versions that the two courses name.
    fn new_files(&self, changes: &Changes, silver: &Decision, refused: &Decision) -> Vec<SourceFile> {
        let new_to = |decision: &Decision, version| match decision.course {
            Course::Incremental { after } => version > after,
            Course::Nothing | Course::FromScratch => false,
        };
        let files = changes.added.iter().map(|f| {
            let stats = Stats::read(f.stats.as_deref());
            SourceFile {
                file: self.file(f.path.clone(), f.size),
                ingestion_date: f.partition.get(PARTITION_COLUMN).cloned().flatten().unwrap_or_default(),
                event_times: stats.event_times(),
                for_silver: new_to(silver, f.version),
                for_refused: new_to(refused, f.version),
            }
        });
        files.filter(|f| f.for_silver || f.for_refused).collect()
    }
}

/// A version of Bronze that was read up to, and what was noted of its log entry.
type Seen = (u64, Option<u64>);

/// The part of `add.stats` that is read here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    min_values: HashMap<String, Value>,
    max_values: HashMap<String, Value>,
}

impl Stats {
    fn read(stats: Option<&str>) -> Self {
        stats.and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default()
    }

    fn event_times(&self) -> Option<(i64, i64)> {
        let bound = |values: &HashMap<String, Value>| {
            let at = DateTime::parse_from_rfc3339(values.get(EVENT_TIME_COLUMN)?.as_str()?).ok()?;
            Some(at.timestamp_micros())
        };
        // Other writers cut to the millisecond, so a maximum may lie that much higher.
        Some((bound(&self.min_values)?, bound(&self.max_values)? + 999))
    }
}

impl Work {
    /// Looks at the tables and decides; none where there is no Bronze table yet.
    pub async fn look(lake: &Lake, pipeline: &Pipeline, definitions: &Definitions) -> Result<Option<Self>, BatchError> {
        let Some(bronze) = Bronze::pin(lake, pipeline).await? else { return Ok(None) };
        let source = &bronze.facts;
        let place = (Layer::Silver, pipeline.name.as_str());
        let silver = Target::look(lake, place, &definitions.silver, &source.table_id).await?;
        let place = (Layer::Silver, refused_table(&pipeline.name));
        let refused = Target::look(lake, (place.0, &place.1), &definitions.refused, &source.table_id).await?;
        let decide = |silver_log: &LogFacts, refused_log: &LogFacts| {
            (
                decide(source, silver.facts(), &definitions.silver.settings, silver_log),
                decide(source, refused.facts(), &definitions.refused.settings, refused_log),
            )
        };
        let (mut silver_course, mut refused_course) = decide(&LogFacts::NotRead, &LogFacts::NotRead);
        // Each log range is judged for itself: one may be whole where the other, which begins earlier, is not.
        let mut logs: BTreeMap<Seen, (LogFacts, Changes)> = BTreeMap::new();
        let seen = |target: &Target, course: &Decision| {
            let facts = target.facts().filter(|_| course.course != Course::FromScratch)?;
            Some((facts.read_to?, facts.read_mark))
        };
        let seen = [seen(&silver, &silver_course), seen(&refused, &refused_course)];
        for at in seen.into_iter().flatten() {
            if let Entry::Vacant(unread) = logs.entry(at) {
                unread.insert(bronze.log(at).await?);
            }
        }
        let [silver_log, refused_log] =
            seen.map(|at| at.and_then(|at| logs.get(&at)).map_or(LogFacts::NotRead, |(facts, _)| facts.clone()));
        (silver_course, refused_course) = decide(&silver_log, &refused_log);
        let mut files: HashMap<String, SourceFile> = HashMap::new();
        for (_, changes) in logs.values() {
            for file in bronze.new_files(changes, &silver_course, &refused_course) {
                files.entry(file.file.path.clone()).or_insert(file);
            }
        }
        let all = (silver_course.course == Course::FromScratch, refused_course.course == Course::FromScratch);
        if all.0 || all.1 {
            for file in bronze.files().await? {
                let known = files.entry(file.file.path.clone()).or_insert(file);
                known.for_silver |= all.0;
                known.for_refused |= all.1;
            }
        }
        let ours = |target: &Target| target.facts().is_some_and(|f| f.source_id.as_ref() == Some(&source.table_id));
        let horizon = match all.0 || all.1 {
            true => bronze_horizon(lake, &pipeline.name).await?,
            false => None,
        };
        let silver_since = horizon.filter(|_| all.0 && ours(&silver));
        let refused_since = horizon.filter(|_| all.1 && ours(&refused));
        if let Some(since) = silver_since {
            silver_course.reason +=
                &format!("; hours up to {since}, which Bronze no longer has whole, stay and are added to");
        }
        // An event of the date itself may have been taken the day before, see `stays`.
        let begins = horizon.filter(|_| silver.found.is_none()).and_then(|since| since.succ_opt());
        if let Some(begins) = begins {
            silver_course.reason += &format!("; it begins with {begins}: of earlier dates Bronze no longer has all");
        }
        let mut files: Vec<SourceFile> = files.into_values().collect();
        files.sort_by(|a, b| (&a.ingestion_date, &a.file.path).cmp(&(&b.ingestion_date, &b.file.path)));
        Ok(Some(Self {
            bronze,
            silver,
            refused,
            silver_course,
            refused_course,
            files,
            silver_since,
            refused_since,
            begins,
        }))
    }

    /// Silver's files of the hours that the run adds to; none where silver is made from scratch.
    pub fn held(&self, touched: impl Fn(Hour) -> bool) -> Result<Vec<(Hour, &TableFile)>, BatchError> {
        if self.silver_course.course == Course::FromScratch && self.silver_since.is_none() {
            return Ok(Vec::new());
        }
        Ok(by_hour(self.silver.files())?.into_iter().filter(|(hour, _)| touched(*hour) && self.stays(*hour)).collect())
    }

    /// Whether silver's rows of an hour stay: all but where it is made from scratch; then those that Bronze may no longer
    /// have. An event is taken from Kafka on its date or later, or, within the guard against wrong clocks, the day before.
    pub fn stays(&self, hour: Hour) -> bool {
        self.silver_course.course != Course::FromScratch || self.silver_since.is_some_and(|since| hour.date() <= since)
    }
}

/// Silver's files with their hours.
pub fn by_hour(files: &[TableFile]) -> Result<Vec<(Hour, &TableFile)>, BatchError> {
    let hour = |file: &TableFile| {
        Hour::of_partition(&file.partition).ok_or_else(|| {
            BatchError::refused(
                format!("the file {} of silver belongs to no event-hour", file.path),
                "somebody else wrote it",
                "delete the table: the next run makes it from Bronze",
            )
        })
    };
    files.iter().map(|file| Ok((hour(file)?, file))).collect()
}
