//! Which letters are resolved: derived from the headers of Bronze's rows, stored nowhere.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::ORIGIN;
use super::find::collect;
use super::row::{bytes, text};
use crate::batch::locate::Place;
use crate::batch::silver::RowRules;
use crate::cli::lake::Lake;
use crate::config::Pipeline;

/// As far the clocks of the instances that take records from Kafka may lie apart.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::hours(1);

/// The records that resolve letters, by the letter's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolutions(BTreeMap<String, Vec<String>>);

impl Resolutions {
    /// The records that resolve a letter.
    pub fn of(&self, letter: &str) -> Vec<String> {
        self.0.get(letter).cloned().unwrap_or_default()
    }

    /// The letters that are resolved.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// What Bronze's rows resolve. A row that is refused itself resolves nothing. With `since`, the arrival of the oldest
/// letter asked for as its row has it, earlier files are not opened: a correction comes behind its letter.
pub(crate) async fn resolutions(lake: &Lake, pipeline: &Pipeline, since: Option<&str>) -> anyhow::Result<Resolutions> {
    let rules = RowRules::of(pipeline)?;
    let mut columns: Vec<String> = ["topic", "generation", "partition", "offset"].map(String::from).into();
    for column in rules.columns() {
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
    let columns: Vec<String> = columns.iter().map(|c| format!("\"{c}\"")).collect();
    let columns = columns.join(", ");
    let since = since.and_then(|since| since.parse::<DateTime<Utc>>().ok()).map(|since| since - CLOCKS_DIFFER_MAX);
    let later = since.map(|since| {
        let (date, time) = (since.format("%Y-%m-%d"), since.format("%Y-%m-%dT%H:%M:%S%.6fZ"));
        format!(" and ingestion_date >= '{date}' and ingestion_time >= '{time}'")
    });
    let later = later.unwrap_or_default();
    let sql = format!(
        "select {columns}, letter_header['value'] as letter_origin from \
         (select {columns}, unnest(headers) as letter_header from bronze.{} \
         where headers is not null and time_status in ('ok', 'late'){later}) as headed \
         where letter_header['key'] = '{ORIGIN}'",
        pipeline.name
    );
    let mut found = Resolutions::default();
    for batch in collect(lake, &sql).await? {
        let reasons = rules.reasons(&batch)?;
        for (row, reasons) in reasons.iter().enumerate() {
            let origin = bytes(&batch, "letter_origin", row).and_then(|bytes| String::from_utf8(bytes).ok());
            let Some(origin) = origin.filter(|_| reasons.is_empty()) else { continue };
            let column = |name| text(&batch, name, row).map(Option::unwrap_or_default);
            let place = Place {
                topic: column("topic")?,
                generation: column("generation")?.parse()?,
                partition: column("partition")?.parse()?,
                offset: column("offset")?.parse()?,
            };
            found.0.entry(origin).or_default().push(place.to_string());
        }
    }
    found.0.values_mut().for_each(|places| places.sort());
    Ok(found)
}
