//! The second pass: each touched hour as it is, with the new rows, without duplicates.
//!
//! A group of hours is read twice: the columns that duplicates are told by, then all columns of the rows that stay. So
//! memory is bounded by the rows of a group (an hour with more is looked at in parts), never by a run's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use futures::TryStreamExt;
use serde_json::Value;

use super::duplicates::{CANDIDATE_BYTES, Candidate, Identities, Place, Rank, losers};
use super::judge::JudgedFile;
use super::{EVENT_DATE, EVENT_HOUR};
use crate::batch::hour::Hour;
use crate::batch::output::{Layout, PartitionWriter};
use crate::batch::plan::{HourRows, groups};
use crate::batch::scan::{DataFile, unreadable};
use crate::batch::target::TableFile;
use crate::batch::{BatchError, TaskContext};
use crate::config::{Pipeline, Role};
use crate::event::EVENT_TIME_COLUMN;

/// Hours that are written at the same time, a Parquet writer each.
const HOURS_MAX: usize = 48;

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
    /// Columns that duplicates are told by.
    keys: SchemaRef,
    event_id: String,
    rows_max: u64,
    context: &'a TaskContext,
}

/// A file that is read for a group of hours.
struct Input {
    file: DataFile,
    /// None: a new file of Bronze, of which these rows count. Else a file of silver, of this hour.
    held: Option<Hour>,
    considered: Option<BooleanBuffer>,
    /// The rows that stay.
    alive: BooleanBufferBuilder,
}

impl Input {
    /// A new file of Bronze.
    fn new(judged: &JudgedFile) -> Self {
        let considered = Some(judged.kept.clone());
        Self { file: judged.file.clone(), held: None, considered, alive: BooleanBufferBuilder::new(0) }
    }
}

impl<'a> Rewriter<'a> {
    /// `memory` bytes are cut for the candidates of one group.
    pub fn new(
        layout: Layout,
        pipeline: &Pipeline,
        memory: usize,
        context: &'a TaskContext,
    ) -> Result<Self, BatchError> {
        let event_id = pipeline.role(Role::EventId).map(|i| pipeline.fields[i].name.clone()).ok_or_else(|| {
            BatchError::refused(
                format!("pipeline {}", pipeline.name),
                "no field has the role `event_id`",
                "give the role to one field of pipeline.toml",
            )
        })?;
        let names = [&event_id, EVENT_TIME_COLUMN, "kafka_timestamp", "generation", "partition", "offset"];
        let keys = names.iter().filter_map(|name| layout.schema.field_with_name(name).ok().cloned());
        let keys = Arc::new(Schema::new(keys.collect::<Vec<_>>()));
        let rows_max = (memory / CANDIDATE_BYTES).max(1) as u64;
        Ok(Self { layout, keys, event_id, rows_max, context })
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
            let buckets = rows.div_ceil(self.rows_max).max(1);
            counts.extend(self.mark(&mut inputs, &group, buckets, &mut Rewritten::default()).await?);
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
            inputs.push(Input { file, held: Some(*hour), considered: None, alive: BooleanBufferBuilder::new(0) });
        }
        let staying = self.mark(&mut inputs, hours, rows.div_ceil(self.rows_max).max(1), done).await?;
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
        inputs: &mut [Input],
        hours: &BTreeSet<Hour>,
        buckets: u64,
        done: &mut Rewritten,
    ) -> Result<HashMap<Hour, u64>, BatchError> {
        let identities = Identities::new();
        let mut staying: HashMap<Hour, u64> = HashMap::new();
        let mut candidates: Vec<Candidate> = Vec::new();
        for bucket in 0..buckets {
            candidates.clear();
            for (number, input) in inputs.iter_mut().enumerate() {
                self.context.check()?;
                let open = input.file.open().await?;
                if bucket == 0 {
                    input.alive.append_n(open.rows, false);
                }
                let mut batches = open.batches(&self.keys, None)?;
                let mut first_row = 0;
                while let Some(batch) = batches.try_next().await? {
                    let keys =
                        Keys::of(&batch, &self.event_id).ok_or_else(|| unreadable(&input.file.path, "no keys"))?;
                    for row in 0..batch.num_rows() {
                        let at = first_row + row;
                        if input.considered.as_ref().is_some_and(|c| !c.value(at)) {
                            continue;
                        }
                        let hour = input.held.unwrap_or_else(|| Hour::of_micros(keys.event_time[row]));
                        if !hours.contains(&hour) {
                            continue;
                        }
                        let place = Place { file: number as u32, row: at as u32 };
                        let candidate = identities.candidate(keys.event_id.value(row), hour, keys.rank(row), place);
                        if Identities::bucket(&candidate, buckets) == bucket {
                            input.alive.set_bit(at, true);
                            if input.held.is_none() {
                                *staying.entry(hour).or_default() += 1;
                            }
                            candidates.push(candidate);
                        }
                    }
                    first_row += batch.num_rows();
                }
            }
            for loser in losers(&mut candidates) {
                let input = &mut inputs[loser.place.file as usize];
                input.alive.set_bit(loser.place.row as usize, false);
                done.duplicates += 1;
                if input.held.is_none() {
                    staying.entry(loser.hour).and_modify(|rows| *rows -= 1);
                }
            }
        }
        Ok(staying)
    }

    /// Copies an input's rows that stay to the files of their hours; the rows read.
    async fn copy(
        &self,
        input: &mut Input,
        changed: &BTreeSet<Hour>,
        writers: &mut BTreeMap<Hour, PartitionWriter>,
    ) -> Result<u64, BatchError> {
        let failed = |e| BatchError::unavailable("rows cannot be put together", e);
        let alive = input.alive.finish();
        let mut batches = input.file.open().await?.batches(&self.layout.schema, None)?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let rows = alive.slice(first_row, batch.num_rows());
            first_row += batch.num_rows();
            let staying = rows.count_set_bits();
            if staying == 0 {
                continue;
            }
            let batch = match staying == batch.num_rows() {
                true => batch,
                false => filter_record_batch(&batch, &BooleanArray::new(rows, None)).map_err(failed)?,
            };
            if let Some(hour) = input.held {
                self.writer(writers, hour).write(&batch).await?;
                continue;
            }
            let times = batch.column_by_name(EVENT_TIME_COLUMN);
            let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
            let times = times.ok_or_else(|| unreadable(&input.file.path, "no event times"))?.values();
            let mut by_hour: BTreeMap<Hour, Vec<u32>> = BTreeMap::new();
            for (row, time) in times.iter().enumerate() {
                by_hour.entry(Hour::of_micros(*time)).or_default().push(row as u32);
            }
            for (hour, rows) in by_hour.into_iter().filter(|(hour, _)| changed.contains(hour)) {
                let part = match rows.len() == batch.num_rows() {
                    true => batch.clone(),
                    false => take_record_batch(&batch, &UInt32Array::from(rows)).map_err(failed)?,
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

/// The columns that duplicates are told by.
struct Keys<'a> {
    event_id: &'a arrow::array::StringArray,
    event_time: &'a [i64],
    kafka_timestamp: &'a arrow::array::TimestampMicrosecondArray,
    generation: &'a [i32],
    partition: &'a [i32],
    offset: &'a [i64],
}

impl<'a> Keys<'a> {
    fn of(batch: &'a RecordBatch, event_id: &str) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        Some(Self {
            event_id: column(event_id)?.as_string_opt::<i32>()?,
            event_time: column(EVENT_TIME_COLUMN)?.as_primitive_opt::<TimestampMicrosecondType>()?.values(),
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
