//! The second pass: each touched hour as it is, with the new rows, without duplicates.
//!
//! Which rows stay is known from their fingerprints, which are in memory but for those of silver's own files, and a look
//! at the few rows that share theirs. Then a group of hours is read once, all columns of it. So memory is bounded by the
//! rows of a group (an hour with more is looked at in parts), never by a run's.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::HashSet;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::RowSelection;
use serde_json::Value;

use super::duplicates::{
    CANDIDATE_BYTES, Candidates, FINGERPRINT_BYTES, Fingerprint, Fingerprints, Place, Rank, shared,
};
use super::judge::{JudgedFile, out_of_time};
use super::{EVENT_DATE, EVENT_HOUR};
use crate::batch::hour::Hour;
use crate::batch::output::{Layout, PartitionWriter};
use crate::batch::plan::{HourRows, groups};
use crate::batch::scan::{DataFile, unreadable};
use crate::batch::target::TableFile;
use crate::batch::{BatchError, TaskContext};
use crate::event::EVENT_TIME_COLUMN;

/// Hours that are written at the same time, a Parquet writer each.
const HOURS_MAX: usize = 48;

/// Bytes of a group's row while duplicates are looked for: its fingerprint, that once more in order, and its share of
/// the set of those that are shared.
const ROW_BYTES: usize = 3 * FINGERPRINT_BYTES;

/// What has become of the touched hours.
#[derive(Debug, Default)]
pub struct Rewritten {
    pub added: Vec<Value>,
    pub removed: Vec<Value>,
    /// Rows in the files that were replaced.
    pub rows_before: u64,
    /// Rows in the files that replace them.
    pub rows_after: u64,
    /// Copies that did not stay.
    pub duplicates: u64,
    /// Bytes of the new files.
    pub bytes: u64,
    /// The hours whose rows have changed.
    pub hours: BTreeSet<Hour>,
}

/// Rewrites hours of a pipeline's silver.
pub struct Rewriter<'a> {
    layout: Layout,
    fingerprints: &'a Fingerprints,
    /// Columns that fingerprints are taken of.
    events: SchemaRef,
    /// Columns by which it is told which copy stays.
    keys: SchemaRef,
    rows_max: u64,
    candidates_max: u64,
    context: &'a TaskContext,
}

/// A file that is read for a group of hours.
struct Input<'f> {
    file: DataFile,
    /// None: a new file of Bronze, of which these rows count. Else a file of silver, of this hour.
    held: Option<Hour>,
    considered: Option<&'f BooleanBuffer>,
    /// Of the rows that count, in their order, as far as they are in memory.
    fingerprints: Option<Cow<'f, [Fingerprint]>>,
    /// The rows that stay.
    alive: BooleanBufferBuilder,
}

impl<'f> Input<'f> {
    /// A new file of Bronze.
    fn new(judged: &'f JudgedFile) -> Self {
        Self {
            file: judged.file.clone(),
            held: None,
            considered: Some(&judged.kept),
            fingerprints: judged.fingerprints.as_deref().map(Cow::Borrowed),
            alive: BooleanBufferBuilder::new(0),
        }
    }

    /// The places of the rows that count, the file having `rows` of them.
    fn places(&self, rows: usize) -> impl Iterator<Item = usize> + use<'f> {
        let all = self.considered.is_none().then_some(0..rows);
        self.considered.into_iter().flat_map(|rows| rows.set_indices()).chain(all.into_iter().flatten())
    }
}

impl<'a> Rewriter<'a> {
    /// `memory` bytes are cut for telling one group's duplicates.
    pub fn new(layout: Layout, fingerprints: &'a Fingerprints, memory: usize, context: &'a TaskContext) -> Self {
        let pick = |names: &[&str]| {
            let fields = names.iter().filter_map(|name| layout.schema.field_with_name(name).ok().cloned());
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        };
        let event_id = fingerprints.event_id.as_str();
        let events = pick(&[event_id, EVENT_TIME_COLUMN]);
        let keys = pick(&[event_id, "kafka_timestamp", "generation", "partition", "offset"]);
        let rows_max = (memory / 2 / ROW_BYTES).max(1) as u64;
        let candidates_max = (memory / 2 / CANDIDATE_BYTES).max(1) as u64;
        Self { layout, fingerprints, events, keys, rows_max, candidates_max, context }
    }

    /// Rewrites `hours` (with the number of new rows in each) from the new files and from silver's files of those
    /// hours. An hour in which no new row stays is left alone.
    pub async fn rewrite(
        &self,
        hours: &HourRows,
        new: &[JudgedFile],
        held: &[(Hour, &TableFile)],
    ) -> Result<Rewritten, BatchError> {
        let mut sizes = hours.clone();
        for (hour, file) in held {
            sizes.entry(*hour).and_modify(|rows| *rows += file.rows);
        }
        let mut done = Rewritten::default();
        let groups = groups(&sizes, self.rows_max, HOURS_MAX);
        for (number, group) in groups.iter().enumerate() {
            self.context.check()?;
            let rows: u64 = group.iter().map(|hour| sizes[hour]).sum();
            self.group(&group.iter().copied().collect(), rows, new, held, &mut done).await?;
            if let (Some(first), Some(last)) = (group.first(), group.last())
                && groups.len() > 1
            {
                let of = groups.len();
                self.context.info(format!("hours {first} to {last} done ({} of {of} groups, {rows} rows)", number + 1));
            }
        }
        Ok(done)
    }

    /// How many rows of the new files stay in each of the hours; writes nothing.
    pub async fn count(&self, hours: &HourRows, new: &[JudgedFile]) -> Result<BTreeMap<Hour, u64>, BatchError> {
        let mut counts = BTreeMap::new();
        for group in groups(hours, self.rows_max, HOURS_MAX) {
            let rows: u64 = group.iter().map(|hour| hours[hour]).sum();
            let group: BTreeSet<Hour> = group.into_iter().collect();
            let mut inputs: Vec<Input> = new.iter().filter(|f| !f.hours.is_disjoint(&group)).map(Input::new).collect();
            counts.extend(self.mark(&mut inputs, &group, rows, &mut Rewritten::default()).await?);
        }
        Ok(counts)
    }

    async fn group(
        &self,
        hours: &BTreeSet<Hour>,
        rows: u64,
        new: &[JudgedFile],
        held: &[(Hour, &TableFile)],
        done: &mut Rewritten,
    ) -> Result<(), BatchError> {
        let store = self.layout.store.object_store(None);
        let held: Vec<&(Hour, &TableFile)> = held.iter().filter(|(hour, _)| hours.contains(hour)).collect();
        let mut inputs: Vec<Input> = new.iter().filter(|f| !f.hours.is_disjoint(hours)).map(Input::new).collect();
        for (hour, file) in &held {
            let file = DataFile { store: store.clone(), path: file.path.clone(), size: file.size };
            let alive = BooleanBufferBuilder::new(0);
            inputs.push(Input { file, held: Some(*hour), considered: None, fingerprints: None, alive });
        }
        let staying = self.mark(&mut inputs, hours, rows, done).await?;
        let changed: BTreeSet<Hour> = staying.into_iter().filter(|(_, rows)| *rows > 0).map(|(hour, _)| hour).collect();
        let mut writers: BTreeMap<Hour, PartitionWriter> = BTreeMap::new();
        for input in inputs.iter_mut().filter(|i| i.held.is_none_or(|hour| changed.contains(&hour))) {
            self.context.check()?;
            let read = self.copy(input, &changed, &mut writers).await?;
            if input.held.is_some() {
                done.rows_before += read;
            }
        }
        for (_, mut writer) in writers {
            done.added.extend(writer.finish().await?);
            done.rows_after += writer.rows;
            done.bytes += writer.bytes;
        }
        let replaced = held.iter().filter(|(hour, _)| changed.contains(hour));
        done.removed.extend(replaced.map(|(_, file)| file.remove.clone()));
        done.hours.extend(changed);
        Ok(())
    }

    /// Marks the rows that stay; how many new rows stay in each hour.
    async fn mark(
        &self,
        inputs: &mut [Input<'_>],
        hours: &BTreeSet<Hour>,
        rows: u64,
        done: &mut Rewritten,
    ) -> Result<HashMap<Hour, u64>, BatchError> {
        let parts = rows.div_ceil(self.rows_max).max(1);
        let mut staying: HashMap<Hour, u64> = HashMap::new();
        for part in 0..parts {
            let mut all = Vec::with_capacity((rows / parts) as usize);
            for input in inputs.iter_mut() {
                self.context.check()?;
                let fingerprints = self.fingerprints(input).await?;
                // Rows come by hour, nearly.
                let (mut run, mut inside) = ((Hour(-1), 0), false);
                for (place, fingerprint) in input.places(fingerprints.len()).zip(fingerprints.iter()) {
                    let hour = fingerprint.hour();
                    if hour != run.0 {
                        note(&mut staying, run);
                        run = (hour, 0);
                        inside = hours.contains(&hour);
                    }
                    if !inside {
                        continue;
                    }
                    if part == 0 {
                        input.alive.set_bit(place, true);
                        run.1 += u64::from(input.held.is_none());
                    }
                    if fingerprint.part(parts) == part {
                        all.push(*fingerprint);
                    }
                }
                note(&mut staying, run);
                input.keep(fingerprints, parts);
            }
            let (shared, rows) = shared(all);
            if rows > 0 {
                self.compare(inputs, &shared, rows, parts, &mut staying, done).await?;
            }
        }
        Ok(staying)
    }

    /// The fingerprints of the rows of an input that count. The first time its rows are all marked as such that do not
    /// stay.
    async fn fingerprints<'f>(&self, input: &mut Input<'f>) -> Result<Cow<'f, [Fingerprint]>, BatchError> {
        if let (Some(considered), true) = (input.considered, input.alive.is_empty()) {
            input.alive.append_n(considered.len(), false);
        }
        if let Some(known) = input.fingerprints.take() {
            return Ok(known);
        }
        let path = &input.file.path;
        let open = input.file.open().await?;
        if input.alive.is_empty() {
            input.alive.append_n(open.rows, false);
        }
        let mut taken = Vec::with_capacity(open.rows);
        let mut batches = open.batches(&self.events, None)?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let ids = batch.column(0).as_string_opt::<i32>().ok_or_else(|| unreadable(path, "no event ids"))?;
            let times = batch.column(1).as_primitive_opt::<TimestampMicrosecondType>();
            let times = times.ok_or_else(|| unreadable(path, "no event times"))?.values();
            for (row, time) in times.iter().enumerate() {
                if input.considered.is_some_and(|rows| !rows.value(first_row + row)) {
                    continue;
                }
                let hour = input.held.unwrap_or_else(|| Hour::of_micros(*time));
                let fingerprint = self.fingerprints.take(ids.value(row), hour);
                taken.push(fingerprint.ok_or_else(|| out_of_time(path, hour))?);
            }
            first_row += batch.num_rows();
        }
        Ok(Cow::Owned(taken))
    }

    /// Compares the rows whose fingerprints are shared by their ids. Of the copies of an event one stays.
    async fn compare(
        &self,
        inputs: &mut [Input<'_>],
        shared: &HashSet<Fingerprint>,
        rows: u64,
        parts_kept: u64,
        staying: &mut HashMap<Hour, u64>,
        done: &mut Rewritten,
    ) -> Result<(), BatchError> {
        let parts = rows.div_ceil(self.candidates_max).max(1);
        for part in 0..parts {
            let mut candidates = Candidates::default();
            for (number, input) in inputs.iter_mut().enumerate() {
                self.context.check()?;
                let fingerprints = self.fingerprints(input).await?;
                let mut wanted = BooleanBufferBuilder::new(input.alive.len());
                wanted.append_n(input.alive.len(), false);
                let mut picked = Vec::new();
                for (place, fingerprint) in input.places(fingerprints.len()).zip(fingerprints.iter()) {
                    if shared.contains(fingerprint) && fingerprint.part(parts) == part {
                        wanted.set_bit(place, true);
                        picked.push((place, *fingerprint));
                    }
                }
                input.keep(fingerprints, parts_kept);
                if !picked.is_empty() {
                    let wanted = BooleanArray::new(wanted.finish(), None);
                    self.candidates(number, &input.file, &wanted, &picked, &mut candidates).await?;
                }
            }
            for (place, hour) in candidates.losers() {
                let input = &mut inputs[place.file as usize];
                input.alive.set_bit(place.row as usize, false);
                done.duplicates += 1;
                if input.held.is_none() {
                    staying.entry(hour).and_modify(|rows| *rows -= 1);
                }
            }
        }
        Ok(())
    }

    /// Reads what rows of a file are compared by.
    async fn candidates(
        &self,
        number: usize,
        file: &DataFile,
        wanted: &BooleanArray,
        picked: &[(usize, Fingerprint)],
        candidates: &mut Candidates,
    ) -> Result<(), BatchError> {
        let selection = RowSelection::from_filters(std::slice::from_ref(wanted));
        let mut batches = file.open().await?.batches(&self.keys, Some(selection))?;
        let mut picked = picked.iter();
        while let Some(batch) = batches.try_next().await? {
            let keys = Keys::of(&batch).ok_or_else(|| unreadable(&file.path, "no keys"))?;
            for (row, (place, fingerprint)) in (0..batch.num_rows()).zip(picked.by_ref()) {
                let place = Place { file: number as u32, row: *place as u32 };
                candidates.push(*fingerprint, keys.event_id.value(row), keys.rank(row), place);
            }
        }
        match picked.len() {
            0 => Ok(()),
            missing => Err(unreadable(&file.path, format!("{missing} rows are missing: it has changed meanwhile"))),
        }
    }

    /// Copies an input's rows that stay to the files of their hours; the rows read.
    async fn copy(
        &self,
        input: &mut Input<'_>,
        changed: &BTreeSet<Hour>,
        writers: &mut BTreeMap<Hour, PartitionWriter>,
    ) -> Result<u64, BatchError> {
        let failed = |e| BatchError::unavailable("rows cannot be put together", e);
        let alive = input.alive.finish();
        let mut batches = input.file.open().await?.batches(&self.layout.schema, None)?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let rows = batch.num_rows();
            let staying = alive.slice(first_row, rows);
            first_row += rows;
            let parts = match input.held {
                Some(hour) => vec![(hour, staying)],
                None => {
                    let times = batch.column_by_name(EVENT_TIME_COLUMN);
                    let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
                    let times = times.ok_or_else(|| unreadable(&input.file.path, "no event times"))?.values();
                    by_hour(&staying, times)
                }
            };
            for (hour, staying) in parts.into_iter().filter(|(hour, _)| changed.contains(hour)) {
                let part = match staying.count_set_bits() {
                    0 => continue,
                    all if all == rows => batch.clone(),
                    _ => filter_record_batch(&batch, &BooleanArray::new(staying, None)).map_err(failed)?,
                };
                self.writer(writers, hour).write(&part).await?;
            }
        }
        Ok(first_row as u64)
    }

    fn writer<'w>(&self, writers: &'w mut BTreeMap<Hour, PartitionWriter>, hour: Hour) -> &'w mut PartitionWriter {
        writers.entry(hour).or_insert_with(|| {
            let partition = vec![(EVENT_DATE, hour.date().to_string()), (EVENT_HOUR, hour.hour_of_day().to_string())];
            PartitionWriter::new(self.layout.clone(), partition)
        })
    }
}

impl<'f> Input<'f> {
    /// Puts fingerprints back: all where a group is looked at as a whole, else those that are kept anyway.
    fn keep(&mut self, fingerprints: Cow<'f, [Fingerprint]>, parts: u64) {
        if parts == 1 || matches!(fingerprints, Cow::Borrowed(_)) {
            self.fingerprints = Some(fingerprints);
        }
    }
}

fn note(staying: &mut HashMap<Hour, u64>, (hour, rows): (Hour, u64)) {
    if rows > 0 {
        *staying.entry(hour).or_default() += rows;
    }
}

/// The rows of a batch that stay, apart for each hour.
fn by_hour(staying: &BooleanBuffer, times: &[i64]) -> Vec<(Hour, BooleanBuffer)> {
    let mut parts: Vec<(Hour, BooleanBufferBuilder)> = Vec::new();
    let mut last = 0;
    for row in staying.set_indices() {
        let hour = Hour::of_micros(times[row]);
        if parts.get(last).is_none_or(|(of, _)| *of != hour) {
            last = parts.iter().position(|(of, _)| *of == hour).unwrap_or(parts.len());
            if last == parts.len() {
                let mut rows = BooleanBufferBuilder::new(times.len());
                rows.append_n(times.len(), false);
                parts.push((hour, rows));
            }
        }
        parts[last].1.set_bit(row, true);
    }
    parts.into_iter().map(|(hour, mut rows)| (hour, rows.finish())).collect()
}

/// The columns that tell which copy of an event stays.
struct Keys<'a> {
    event_id: &'a arrow::array::StringArray,
    kafka_timestamp: &'a arrow::array::TimestampMicrosecondArray,
    generation: &'a [i32],
    partition: &'a [i32],
    offset: &'a [i64],
}

impl<'a> Keys<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        Some(Self {
            event_id: batch.column(0).as_string_opt::<i32>()?,
            kafka_timestamp: column("kafka_timestamp")?.as_primitive_opt::<TimestampMicrosecondType>()?,
            generation: column("generation")?.as_primitive_opt::<Int32Type>()?.values(),
            partition: column("partition")?.as_primitive_opt::<Int32Type>()?.values(),
            offset: column("offset")?.as_primitive_opt::<Int64Type>()?.values(),
        })
    }

    fn rank(&self, row: usize) -> Rank {
        let timestamp = self.kafka_timestamp.is_valid(row).then(|| self.kafka_timestamp.value(row));
        Rank {
            kafka_timestamp: timestamp.unwrap_or(i64::MAX),
            generation: self.generation[row],
            partition: self.partition[row],
            offset: self.offset[row],
        }
    }
}

#[cfg(test)]
mod tests;
