//! When a window is complete: no partition that still has records will add to it.

/// What `realtime.positions` says of one partition of the newest generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionHorizon {
    /// Windows that end at or before it are final in this partition, microseconds; none before its first event.
    pub closed_horizon: Option<i64>,
    /// Whether the partition has had nothing new for a while, so that it holds nothing back.
    pub idle: bool,
}

/// Windows that end at or before this instant (microseconds) are complete. It is the least horizon of the partitions
/// that are not idle; where all are idle, the greatest of all: time does not go on by itself.
pub fn complete_horizon(partitions: &[PartitionHorizon]) -> Option<i64> {
    let mut busy = partitions.iter().filter(|p| !p.idle).map(|p| p.closed_horizon).peekable();
    if busy.peek().is_some() {
        // None is less than any instant: a partition without events holds everything back until it is idle.
        busy.min().flatten()
    } else {
        partitions.iter().filter_map(|p| p.closed_horizon).max()
    }
}
