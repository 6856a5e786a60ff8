//! Where a partition starts. Pure: everything known is an argument.

use std::ops::Range;

use crate::config::StartAt;
use crate::remedy;
use crate::window::{Claim, LastRecord};

/// What is known of a partition at the moment of its assignment.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// The topic and partition, for messages.
    pub name: &'a str,
    /// The pipeline's name, for commands.
    pub pipeline: &'a str,
    /// Offsets that the broker's log holds now.
    pub log: Range<i64>,
    /// Bronze's position, if Bronze knows the partition.
    pub bronze: Option<i64>,
    /// Whether Bronze knows any partition of the topic: then one without a position was added later.
    pub pipeline_has_begun: bool,
    pub start_at: StartAt,
    /// The table that the group's committed offset stands for, and ours.
    pub committed_table: Option<&'a str>,
    pub our_table: &'a str,
}

/// What to do with the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Read on at Bronze's position.
    Continue(i64),
    /// Commit this position as the genesis, then read from it.
    Begin(i64),
    /// Do not read it: what happened, and what resolves it.
    Stop { what: String, command: String },
}

/// Decides where a partition starts. It never skips a record by itself: what is not in the log any more, or not yet,
/// stops the partition until somebody decides.
pub fn place(known: &Known<'_>) -> Placement {
    let Known { name, log, .. } = known;
    if let Some(table) = known.committed_table.filter(|table| *table != known.our_table) {
        return Placement::Stop {
            what: format!(
                "the consumer group of {name} belongs to another Bronze table ({table}); ours is {}. Two lakehouses in \
                 one group would share the partitions between them",
                known.our_table
            ),
            command: "give this daemon a `kafka.group` of its own".into(),
        };
    }
    match known.bronze {
        None if known.pipeline_has_begun || known.start_at == StartAt::Earliest => Placement::Begin(log.start),
        None => Placement::Begin(log.end),
        Some(position) if position < log.start => Placement::Stop {
            what: format!(
                "{name}: Bronze ends at offset {position}, but the log begins at {}: retention removed {} offsets that \
                 were never read",
                log.start,
                log.start - position
            ),
            command: remedy::accept_gap(known.pipeline),
        },
        Some(position) if position > log.end => Placement::Stop {
            what: format!(
                "{name}: Bronze ends at offset {position}, but the log ends at {}: the topic was made anew, or the \
                 broker lost its tail",
                log.end
            ),
            command: remedy::adopt_topic(known.pipeline),
        },
        Some(position) => Placement::Continue(position),
    }
}

/// What a log was found to hold of what was read from it earlier.
#[derive(Debug, Clone)]
pub struct Witness<'a> {
    /// The topic and partition, for messages.
    pub name: &'a str,
    /// The pipeline's name, for commands.
    pub pipeline: &'a str,
    /// Bronze's position.
    pub at: i64,
    /// The offset behind the log's last record.
    pub log_end: i64,
    /// Offset of Bronze's last row, and whether the log's record there is that row; none where that cannot be said.
    pub row: Option<(i64, bool)>,
    /// Positions in ClickHouse beyond Bronze's, with the record that the log has in the place of their last one.
    pub claims: &'a [(Claim, Option<LastRecord>)],
}

/// Decides whether a log is still the one that was read, so that it may be read on. A broker that lost its tail, or a
/// topic that was made anew and has grown past the position, would otherwise be read on as if nothing had happened.
pub fn confirm(witness: &Witness<'_>) -> Placement {
    let Witness { name, log_end, .. } = witness;
    if let Some((offset, false)) = witness.row {
        return Placement::Stop {
            what: format!(
                "{name}: the record at offset {offset} is not the one that Bronze has: the topic was made anew, or the \
                 broker lost its tail"
            ),
            command: remedy::adopt_topic(witness.pipeline),
        };
    }
    match witness.claims.iter().find(|(claim, found)| !claim.holds(*log_end, *found)) {
        Some((claim, _)) => Placement::Stop {
            what: format!(
                "{name}: ClickHouse has counted the records below offset {}, but the log ends at {log_end} and no longer \
                 holds them: the broker lost its tail",
                claim.next_offset
            ),
            command: remedy::accept_settings(witness.pipeline),
        },
        None => Placement::Continue(witness.at),
    }
}
