//! The commands that errors name, in one place so that the command line and the messages agree.

/// For a bucket whose store overwrites what it should keep.
pub const CONDITIONAL_WRITES: &str =
    "keep the lakehouse in a store that knows conditional writes (Amazon S3, MinIO, Ceph, Cloudflare R2 do)";

/// Takes a torn or zero-length tail off the table's log.
pub fn repair_log(pipeline: &str) -> String {
    format!("`boathouse bronze repair-log {pipeline}` takes the damaged tail off the log")
}

/// Goes (back) to the configuration's settings on purpose.
pub fn accept_settings(pipeline: &str) -> String {
    format!("`boathouse bronze accept-settings {pipeline}` puts this configuration's settings in force on purpose")
}

/// Goes on from a table that somebody has taken rows from.
pub fn accept_removal(pipeline: &str) -> String {
    format!(
        "find out who did it; then `boathouse bronze accept-settings {pipeline}` goes on from the table as it is, and the \
         windows are counted again from it"
    )
}

/// Takes on a topic that was deleted and made anew, as a new generation.
pub fn adopt_topic(pipeline: &str) -> String {
    format!("`boathouse bronze adopt-topic {pipeline}` takes the new topic on as a new generation")
}

/// Takes a cluster of bad records as dead letters.
pub fn accept_bad_records(pipeline: &str) -> String {
    format!(
        "have whoever sends them mended; then `boathouse bronze accept-bad-records {pipeline}` takes these as dead letters \
         and reads on, or `boathouse bronze accept-bad-backlog {pipeline}` whatever is bad up to the end of the log"
    )
}

/// Reads on where Kafka's log begins, although Bronze ends below it.
pub fn accept_gap(pipeline: &str) -> String {
    format!("`boathouse bronze accept-gap {pipeline}` reads on at the log's start")
}
