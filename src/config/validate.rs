//! Rules between values of a pipeline: names, roles, references, windows; and between pipelines. The daemon's own are in
//! `validate/server.rs`.

mod server;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ConfigErrors, did_you_mean};
use super::places::Places;
use super::{Aggregate, AllowedValue, Field, FieldType, Pipeline, Role};
pub(super) use server::{is_secret_option, is_secret_property, server};

/// Columns that Bronze has beside the pipeline's fields.
pub const BRONZE_COLUMNS: [&str; 13] = [
    "topic",
    "generation",
    "partition",
    "offset",
    "kafka_timestamp",
    "key",
    "headers",
    "event_time",
    "time_status",
    "parse_error",
    "payload",
    "ingestion_time",
    "ingestion_date",
];

/// Names in ClickHouse's `realtime` database that no aggregate may take.
const SERVED_NAMES: [&str; 5] = ["windows", "positions", "intents", "migrations", "freshness"];

/// Columns that the tables of realtime windows need for themselves.
const SERVED_COLUMNS: [&str; 6] =
    ["window_start", "topic", "generation", "partition", "partial_count", "partial_version"];

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longest time setting that is taken for meant: beyond it, sums of times could overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
const LONGEST_NAME: usize = 64;
/// Most records that are counted again from Bronze before a partition is read on.
const BAD_RECORDS_OF: u32 = 1_000_000;

/// Why a text is no name, if it is none.
fn bad_name(name: &str) -> Option<&'static str> {
    let mut chars = name.chars();
    if !chars.next().is_some_and(|c| c.is_ascii_lowercase()) {
        return Some("begins with no small letter");
    }
    if !chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Some("has other characters than small letters, digits and underscores");
    }
    if name.len() > LONGEST_NAME {
        return Some("is longer than 64 characters");
    }
    None
}

/// Collects the mistakes of one pipeline.
struct Rules<'a> {
    pipeline: &'a Pipeline,
    places: &'a Places,
    errors: &'a mut ConfigErrors,
}

impl Rules<'_> {
    fn add(&mut self, path: &str, message: String, hint: &str) {
        if !self.places.broken.contains(path) {
            self.errors.add(self.places.near(path), message, hint);
        }
    }

    /// A name of a field, aggregate or measure; missing ones have their error already.
    fn name(&mut self, path: &str, name: &str, of: &str) {
        if let Some(reason) = bad_name(name)
            && !self.places.broken.contains(path)
        {
            let message = format!("{of} `{name}` {reason}");
            self.add(path, message, "names are like user_id: [a-z][a-z0-9_]*, at most 64 characters");
        }
    }

    fn positive(&mut self, path: &str, value: Duration) {
        if value.is_zero() {
            self.add(path, format!("`{path}` is 0"), "it must be longer than nothing");
        }
        self.bounded(path, value);
    }

    fn bounded(&mut self, path: &str, value: Duration) {
        if value > LONGEST {
            let message = format!("`{path}` is {}, more than a year", humantime::format_duration(value));
            self.add(path, message, "is the unit right? `m` is minutes, `M` is months");
        }
    }
}

pub(super) fn pipeline(pipeline: &Pipeline, places: &Places, errors: &mut ConfigErrors) {
    let mut rules = Rules { pipeline, places, errors };
    rules.pipeline_name();
    rules.topic();
    rules.fields();
    rules.roles();
    for (i, aggregate) in pipeline.aggregates.iter().enumerate() {
        rules.aggregate(&format!("aggregate[{i}]"), aggregate);
    }
    rules.times();
    rules.bad_records();
    rules.schedule();
}

impl Rules<'_> {
    fn pipeline_name(&mut self) {
        let name = &self.pipeline.name;
        if let Some(reason) = bad_name(name) {
            let hint = "rename the folder: [a-z][a-z0-9_]*, at most 64 characters";
            self.add("", format!("the pipeline's folder `{name}` {reason}"), hint);
        } else if name.contains("__") {
            let hint = "rename the folder: two underscores separate the parts of names in the environment";
            self.add("", format!("the pipeline's folder `{name}` has two underscores in a row"), hint);
        }
    }

    fn topic(&mut self) {
        let topic = &self.pipeline.topic;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(legal) {
            let hint = "Kafka's names are letters, digits, `.`, `_` and `-`, at most 249";
            self.add("topic", format!("`topic` \"{topic}\" is no topic name"), hint);
        }
    }

    fn fields(&mut self) {
        if self.pipeline.fields.is_empty() {
            self.add("field", "the pipeline has no field".into(), "add a [[field]] section for each key of an event");
        }
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, field) in self.pipeline.fields.iter().enumerate() {
            let path = format!("field[{i}].name");
            self.name(&path, &field.name, "field");
            if let Some(earlier) = first.get(field.name.as_str())
                && !field.name.is_empty()
            {
                let hint = format!("the first is at {}", self.places.near(&format!("field[{earlier}].name")));
                self.add(&path, format!("field `{}` is there twice", field.name), &hint);
            }
            first.entry(&field.name).or_insert(i);
            if field.role != Some(Role::EventTime) && BRONZE_COLUMNS.contains(&field.name.as_str()) {
                let hint = format!("Bronze has a column of this name: {}", BRONZE_COLUMNS.join(", "));
                self.add(&path, format!("field `{}` cannot have this name", field.name), &hint);
            }
            self.allowed(i, field);
        }
    }

    fn allowed(&mut self, i: usize, field: &Field) {
        let Some(allowed) = &field.allowed else { return };
        let path = format!("field[{i}].allowed");
        let fits = |v: &AllowedValue| match (field.kind, v) {
            (FieldType::String, AllowedValue::Text(_)) | (FieldType::Int, AllowedValue::Int(_)) => true,
            (FieldType::Float | FieldType::Bool | FieldType::Timestamp, _) => false,
            (FieldType::String, AllowedValue::Int(_)) | (FieldType::Int, AllowedValue::Text(_)) => false,
        };
        if self.places.broken.contains(&format!("field[{i}].type")) {
        } else if allowed.is_empty() {
            self.add(&path, format!("`allowed` of `{}` is empty", field.name), "name the values, or leave it out");
        } else if !allowed.iter().all(fits) {
            let message = format!("`allowed` of `{}` does not fit its type", field.name);
            self.add(&path, message, "texts for `string`, whole numbers for `int`; other types take no list");
        }
    }

    fn roles(&mut self) {
        // A role that was misspelt is reported already; so is its absence then.
        let misspelt = self.places.broken.iter().any(|p| p.starts_with("field") && p.ends_with(".role"));
        for (role, name, kind, kind_name) in [
            (Role::EventId, "event_id", FieldType::String, "string"),
            (Role::EventTime, "event_time", FieldType::Timestamp, "timestamp"),
        ] {
            let bearers: Vec<usize> =
                (0..self.pipeline.fields.len()).filter(|i| self.pipeline.fields[*i].role == Some(role)).collect();
            match bearers[..] {
                [] if misspelt || self.pipeline.fields.is_empty() => {}
                [] => {
                    let hint = format!("give one field of type {kind_name}: role = \"{name}\"");
                    self.add("field", format!("no field has the role {name}"), &hint);
                }
                [i, ref more @ ..] => {
                    let field = &self.pipeline.fields[i];
                    if field.kind != kind && !self.places.broken.contains(&format!("field[{i}].type")) {
                        let message = format!("the role {name} needs the type {kind_name}");
                        self.add(&format!("field[{i}].role"), message, "change the field's type, or its role");
                    }
                    if !field.required {
                        let message = format!("the field with the role {name} cannot be optional");
                        self.add(&format!("field[{i}].required"), message, "take out `required = false`");
                    }
                    for second in more {
                        let hint =
                            format!("`{}` has it at {}", field.name, self.places.near(&format!("field[{i}].role")));
                        self.add(
                            &format!("field[{second}].role"),
                            format!("a second field with the role {name}"),
                            &hint,
                        );
                    }
                }
            }
        }
    }

    fn aggregate(&mut self, path: &str, aggregate: &Aggregate) {
        let (name_path, measure_path) = (format!("{path}.name"), format!("{path}.measure"));
        self.name(&name_path, &aggregate.name, "aggregate");
        self.name(&measure_path, &aggregate.measure, "measure");
        if SERVED_NAMES.contains(&aggregate.name.as_str()) || aggregate.name.contains("_partials_") {
            let message = format!("an aggregate cannot be named `{}`", aggregate.name);
            self.add(&name_path, message, "the platform's own tables in ClickHouse have this name");
        }
        let measure = &aggregate.measure;
        if SERVED_COLUMNS.contains(&measure.as_str()) || aggregate.dimensions.contains(measure) {
            let message = format!("the measure `{measure}` is another column of the table already");
            self.add(&measure_path, message, "as in `login_count`");
        }
        for (i, dimension) in aggregate.dimensions.iter().enumerate() {
            let at = format!("{path}.dimensions[{i}]");
            if aggregate.dimensions[..i].contains(dimension) {
                self.add(&at, format!("dimension `{dimension}` is there twice"), "leave one out");
            }
            if SERVED_COLUMNS.contains(&dimension.as_str()) {
                let hint = format!("the tables of windows have columns of their own: {}", SERVED_COLUMNS.join(", "));
                self.add(&at, format!("a dimension cannot be named `{dimension}`"), &hint);
            }
            self.string_field(&at, dimension, "dimension");
        }
        for (field, values) in &aggregate.filter {
            let at = format!("{path}.filter.{field}");
            self.string_field(&at, field, "filter");
            if values.is_empty() {
                self.add(
                    &at,
                    format!("the filter on `{field}` has no value, so nothing would count"),
                    "name the values",
                );
            }
        }
        let base = self.pipeline.time.window;
        if let Some(window) = aggregate.window {
            let at = format!("{path}.window");
            if window.is_zero() || base.is_zero() || !is_multiple(window, base) {
                let message = format!(
                    "window {} is no multiple of time.window, {}",
                    humantime::format_duration(window),
                    humantime::format_duration(base)
                );
                self.add(&at, message, "make it a multiple, or leave it out");
            } else if !is_multiple(DAY, window) {
                let message = format!("window {} does not divide a day", humantime::format_duration(window));
                self.add(&at, message, "windows begin at midnight UTC, as with 1m, 5m, 1h");
            }
        }
    }

    fn string_field(&mut self, path: &str, name: &str, of: &str) {
        let fields = &self.pipeline.fields;
        match fields.iter().position(|f| f.name == name) {
            None => {
                let strings = || fields.iter().filter(|f| f.kind == FieldType::String).map(|f| f.name.as_str());
                let hint = match did_you_mean(name, strings()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the string fields are {}", strings().collect::<Vec<_>>().join(", ")),
                };
                self.add(path, format!("{of} `{name}` is no field of this pipeline"), &hint);
            }
            Some(i)
                if fields[i].kind != FieldType::String && !self.places.broken.contains(&format!("field[{i}].type")) =>
            {
                self.add(path, format!("{of} `{name}` is no string field"), "only string fields group and filter");
            }
            Some(_) => {}
        }
    }

    fn times(&mut self) {
        let pipeline = self.pipeline;
        let time = &pipeline.time;
        self.positive("bronze.flush_interval", pipeline.bronze.flush_interval);
        self.positive("realtime.flush_interval", pipeline.realtime.flush_interval);
        self.positive("time.idle_after", time.idle_after);
        for (path, value) in [
            ("time.bound", time.bound),
            ("time.allowed_lateness", time.allowed_lateness),
            ("time.future_guard", time.future_guard),
        ] {
            self.bounded(path, value);
        }
        if pipeline.bronze.flush_bytes.0 == 0 {
            self.add("bronze.flush_bytes", "`bronze.flush_bytes` is 0".into(), "as in \"32MiB\"");
        }
        if pipeline.realtime.max_combinations == 0 {
            let hint = "1000 is a good value";
            self.add("realtime.max_combinations", "`realtime.max_combinations` is 0".into(), hint);
        }
        if time.window.is_zero() || time.window.subsec_nanos() != 0 || !is_multiple(DAY, time.window) {
            let message = format!(
                "`time.window` {} does not divide a day into whole seconds",
                humantime::format_duration(time.window)
            );
            self.add("time.window", message, "windows begin at midnight UTC, as with 10s, 1m, 5m, 1h");
        }
        let longest = pipeline.aggregates.iter().filter_map(|a| a.window).fold(time.window, Duration::max);
        let open = longest.saturating_add(time.bound).saturating_add(time.allowed_lateness);
        if let Some(retention) = pipeline.retention.realtime
            && retention < open.max(DAY)
        {
            let message = format!("`retention.realtime` {} is too short", humantime::format_duration(retention));
            let hint = "windows go by whole days, and only once they are closed: at least 1d, and more than the longest window with time.bound and time.allowed_lateness";
            self.add("retention.realtime", message, hint);
        }
        self.retention();
    }

    fn retention(&mut self) {
        let shown = |d: Duration| humantime::format_duration(d).to_string();
        let retention = self.pipeline.retention.clone();
        if let Some(bronze) = retention.bronze {
            match retention.realtime {
                None => {
                    let hint =
                        "windows are counted again from Bronze: keep both for ever, or give retention.realtime a limit";
                    self.add(
                        "retention.bronze",
                        "`retention.bronze` has a limit, and `retention.realtime` has none".into(),
                        hint,
                    );
                }
                Some(realtime) if bronze < realtime.saturating_add(2 * DAY) => {
                    let message = format!("`retention.bronze` {} is too short", shown(bronze));
                    let hint = format!(
                        "windows are counted again from Bronze: at least retention.realtime, {}, and 2d",
                        shown(realtime)
                    );
                    self.add("retention.bronze", message, &hint);
                }
                Some(_) => {}
            }
        }
        for (key, value) in [("silver", retention.silver), ("gold", retention.gold)] {
            if value.is_some_and(|kept| kept < 2 * DAY) {
                let path = format!("retention.{key}");
                self.add(&path, format!("`{path}` is too short"), "whole dates go: at least 2d");
            }
        }
        if let Some(gold) = retention.gold
            && retention.silver.is_none_or(|silver| silver > gold)
        {
            let message = format!("`retention.gold` {} is shorter than `retention.silver`", shown(gold));
            self.add(
                "retention.gold",
                message,
                "dates are computed from silver, from which they would come back: at least as long",
            );
        }
    }
}

impl Rules<'_> {
    fn bad_records(&mut self) {
        let settings = &self.pipeline.bad_records;
        if let Some(share) = settings.stop_share
            && !(0.0..1.0).contains(&share)
        {
            let hint = "at least 0, where the first bad record stops a partition, and less than 1, as in 0.5; take it out to stop for none";
            self.add("bad_records.stop_share", format!("`bad_records.stop_share` is {share}"), hint);
        }
        if !(1..=BAD_RECORDS_OF).contains(&settings.of_last) {
            let message = format!("`bad_records.of_last` is {}", settings.of_last);
            let hint = "1 to 1000000: so many rows of Bronze are counted again whenever a partition is taken up";
            self.add("bad_records.of_last", message, hint);
        }
    }

    fn schedule(&mut self) {
        let pipeline = self.pipeline;
        let schedule = &pipeline.schedule;
        if let Some((message, hint)) = bad_cron("schedule.cron", &schedule.cron) {
            self.add("schedule.cron", message, hint);
        }
        if let Some((message, hint)) = bad_zone("schedule.timezone", &schedule.timezone) {
            self.add("schedule.timezone", message, &hint);
        }
        if schedule.retries > 100 {
            self.add("schedule.retries", format!("`schedule.retries` is {}", schedule.retries), "at most 100");
        }
        self.bounded("schedule.backoff", schedule.backoff);
        self.positive("schedule.time_limit", schedule.time_limit);
        if schedule.time_limit > 6 * DAY {
            let shown = humantime::format_duration(schedule.time_limit);
            let hint = "at most 6d: after 7d vacuum takes files whose commit has not come";
            self.add("schedule.time_limit", format!("`schedule.time_limit` {shown} is too long"), hint);
        }
        self.positive("schedule.deadline", schedule.deadline);
    }
}

/// What is wrong with a pattern of slots, and a hint.
fn bad_cron(key: &str, cron: &str) -> Option<(String, &'static str)> {
    let error = croner::Cron::from_str(cron).err()?;
    let message = format!("`{key}` \"{cron}\" is no schedule: {error}");
    Some((message, "minute, hour, day of month, month, day of week, as in \"5 * * * *\""))
}

/// What is wrong with a time zone, and a hint.
fn bad_zone(key: &str, zone: &str) -> Option<(String, String)> {
    chrono_tz::Tz::from_str(zone).err()?;
    let hint = match did_you_mean(zone, chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name())) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "as in \"UTC\" or \"Europe/Berlin\"".into(),
    };
    Some((format!("`{key}` \"{zone}\" is no time zone"), hint))
}

fn is_multiple(of: Duration, unit: Duration) -> bool {
    of.as_nanos().is_multiple_of(unit.as_nanos()) && !unit.is_zero()
}

/// Rules between pipelines. Each has a Bronze of its own by its folder's name.
pub(super) fn across(pipelines: &[Arc<Pipeline>], places: &[Places], errors: &mut ConfigErrors) {
    let mut first: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (p, pipeline) in pipelines.iter().enumerate() {
        for (a, aggregate) in pipeline.aggregates.iter().enumerate().filter(|(_, a)| !a.name.is_empty()) {
            match first.get(aggregate.name.as_str()) {
                Some((q, b)) => errors.add(
                    places[p].near(&format!("aggregate[{a}].name")),
                    format!("aggregate `{}` is there twice", aggregate.name),
                    format!(
                        "the first is at {}; each is a view in ClickHouse, so that names are unique across pipelines",
                        places[*q].near(&format!("aggregate[{b}].name"))
                    ),
                ),
                None => {
                    first.insert(&aggregate.name, (p, a));
                }
            }
        }
    }
}
