//! How fresh realtime is, kept over time: one row a minute and aggregate, made by the server from the positions.

use super::client::Client;
use super::error::Error;

/// Positions of definitions that are no longer in force would look stale for ever: of each aggregate, the definition that
/// was written last counts.
const NOTE: &str = "INSERT INTO realtime.freshness \
     (pipeline, aggregate, observed_at, newest_record_time, lag_seconds, counted_records) \
     SELECT pipeline, aggregate, now64(3), \
       if(newest < 0, NULL, fromUnixTimestamp64Milli(newest, 'UTC')), \
       if(newest < 0, NULL, (toUnixTimestamp64Milli(now64(3)) - newest) / 1000), records \
     FROM (SELECT pipeline, aggregate, definition, max(last_timestamp) AS newest, sum(next_offset) AS records, \
         max(written_at) AS written \
       FROM realtime.positions FINAL WHERE pipeline = {pipeline} GROUP BY pipeline, aggregate, definition \
       ORDER BY written DESC LIMIT 1 BY pipeline, aggregate)";

impl Client {
    /// Adds a row for each aggregate of a pipeline to `realtime.freshness`.
    pub async fn note_freshness(&self, pipeline: &str) -> Result<(), Error> {
        // The name is checked when the configuration is read; this is the last door before SQL.
        let safe: String = pipeline.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        self.execute("insert into realtime.freshness", &NOTE.replace("{pipeline}", &format!("'{safe}'"))).await
    }
}
