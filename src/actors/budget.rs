//! How the one memory budget is cut. Pure.

use crate::kafka::BatchLimit;
use crate::serving::RECOUNT_BYTES_MAX;

/// Shares of `memory.budget`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The whole.
    pub whole: usize,
    /// What librdkafka may hold per partition.
    pub kafka_queue: usize,
    /// When a batch is full: large records, and a small budget, make small batches.
    pub batch: BatchLimit,
    /// Encoded bytes at which a Bronze file is committed, whatever `bronze.flush_bytes` says. Two exist at a time: one
    /// fills while one is being written.
    pub bronze_file: usize,
    /// What the window totals of one partition may hold before they are dropped, to be counted again from Bronze.
    pub windows: usize,
    /// What totals of one partition may take while they are counted again from Bronze; the rest goes to ClickHouse in
    /// between. Beside the other shares, for as long as a recount lasts.
    pub recount: usize,
}

impl Budget {
    /// Cuts the budget for an instance that may come to hold all `partitions` of a pipeline, one of `pipelines`.
    ///
    /// A quarter for Kafka's queues, an eighth for batches in hand (three a partition, one of them being decoded into
    /// columns), a half for the two Bronze files, whose buffers take up to twice their encoded bytes, an eighth for
    /// windows. Recounts of all partitions at once, as after an outage of ClickHouse, take no more than as much again.
    pub fn divide(whole: usize, pipelines: usize, partitions: usize) -> Self {
        let share = whole / pipelines.max(1);
        let partitions = partitions.max(1);
        Self {
            whole,
            kafka_queue: (share / 4 / partitions).clamp(1 << 20, 16 << 20),
            batch: BatchLimit { records: 10_000, bytes: (share / 8 / partitions / 4).clamp(64 << 10, 4 << 20) },
            bronze_file: (share / 8).max(1 << 20),
            windows: (share / 8 / partitions).max(256 << 10),
            recount: (share / partitions).clamp(1 << 20, RECOUNT_BYTES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_whole() {
        let b = Budget::divide(128 << 20, 1, 3);
        assert!((b.kafka_queue + b.batch.bytes * 4) * 3 + b.bronze_file * 4 + b.windows * 3 <= 128 << 20, "{b:?}");
        let b = Budget::divide(128 << 20, 2, 24);
        assert!(b.kafka_queue >= 1 << 20 && b.batch.bytes >= 64 << 10 && b.windows >= 256 << 10, "{b:?}");
    }

    #[test]
    fn recounts_of_all_partitions_at_once_take_one_budget() {
        for (mib, partitions) in [(16, 3), (64, 3), (64, 24), (1024, 3)] {
            let b = Budget::divide(mib << 20, 1, partitions);
            assert!(b.recount * partitions <= mib << 20, "{b:?}");
        }
        // Few passes over Bronze where there is room, and never so little that each brings nothing.
        assert!(Budget::divide(64 << 20, 1, 3).recount > 20 << 20);
        assert_eq!(Budget::divide(1024 << 20, 1, 3).recount, RECOUNT_BYTES_MAX);
        assert_eq!(Budget::divide(16 << 20, 2, 100).recount, 1 << 20);
    }
}
