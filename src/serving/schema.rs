//! The tables that every pipeline shares, by versioned migrations. Each statement may run twice: two daemons that
//! start at the same moment both run them.

use clickhouse::Row;
use serde::Deserialize;

use super::client::Client;
use super::error::{Error, ErrorKind};
use crate::failpoint;

/// One step of the schema. A step that has been released never changes; a new one is added below it.
struct Migration {
    version: u32,
    name: &'static str,
    statements: &'static [&'static str],
}

/// Settings of every table: an insert is acknowledged only once it is on disk. (Merges are not; their sources are kept
/// for `old_parts_lifetime`, which stays as it is.)
pub(super) const DURABLE: &str = "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1";

/// The columns by which positions and intents are found.
const KEY: &str = "(pipeline, aggregate, definition, topic, generation, partition)";

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "positions and intents",
        statements: &[
            "CREATE TABLE IF NOT EXISTS realtime.positions (
            pipeline LowCardinality(String), aggregate LowCardinality(String), definition LowCardinality(String),
            topic LowCardinality(String), generation Int32, partition Int32,
            next_offset UInt64 COMMENT 'every record below it is counted',
            closed_horizon Int64 COMMENT 'microseconds; windows that end at or before it are final; least value: none',
            open_cells UInt64 COMMENT 'cells of windows that are not closed',
            open_count UInt64 COMMENT 'the sum of their counts',
            last_offset Int64 COMMENT 'the last record below next_offset; -1: unknown',
            last_timestamp Int64 COMMENT 'its Kafka timestamp, milliseconds',
            last_checksum UInt64 COMMENT 'of its key and value',
            idle UInt8 COMMENT 'the partition holds back no window',
            written_at DateTime64(3, 'UTC') DEFAULT now64(3)
        ) ENGINE = ReplacingMergeTree(next_offset)
        ORDER BY (pipeline, aggregate, definition, topic, generation, partition)
        SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
            "CREATE TABLE IF NOT EXISTS realtime.intents (
            pipeline LowCardinality(String), aggregate LowCardinality(String), definition LowCardinality(String),
            topic LowCardinality(String), generation Int32, partition Int32,
            next_offset UInt64 COMMENT 'totals with this version are about to be written',
            last_offset Int64, last_timestamp Int64, last_checksum UInt64,
            written_at DateTime64(3, 'UTC') DEFAULT now64(3)
        ) ENGINE = ReplacingMergeTree(next_offset)
        ORDER BY (pipeline, aggregate, definition, topic, generation, partition)
        SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
        ],
    },
    Migration {
        version: 2,
        name: "freshness over time",
        statements: &["CREATE TABLE IF NOT EXISTS realtime.freshness (
            pipeline LowCardinality(String), aggregate LowCardinality(String),
            observed_at DateTime64(3, 'UTC'),
            newest_record_time Nullable(DateTime64(3, 'UTC')) COMMENT 'Kafka timestamp of the newest record counted',
            lag_seconds Nullable(Float64) COMMENT 'how far it lies behind: of an idle topic, since the last record',
            counted_records UInt64 COMMENT 'records counted in all partitions, of all generations'
        ) ENGINE = MergeTree ORDER BY (pipeline, aggregate, observed_at)
        TTL toDateTime(observed_at) + INTERVAL 400 DAY"],
    },
    Migration {
        version: 3,
        name: "which table of totals a position speaks of",
        statements: &["ALTER TABLE realtime.positions ADD COLUMN IF NOT EXISTS \
                   partials String COMMENT 'the comment of the table of totals that it speaks of'"],
    },
];

/// The columns of an insert into `realtime.positions`, in the order that [`mod@super::flush`] writes them.
pub(super) const POSITIONS: &str = "realtime.positions (pipeline, aggregate, definition, topic, generation, partition, \
     next_offset, last_offset, last_timestamp, last_checksum, closed_horizon, open_cells, open_count, idle, \
     partials)";

/// The columns of an insert into `realtime.intents`: the same, up to the last record.
pub(super) const INTENTS: &str = "realtime.intents (pipeline, aggregate, definition, topic, generation, partition, \
     next_offset, last_offset, last_timestamp, last_checksum)";

#[derive(Row, Deserialize)]
struct Applied {
    version: u32,
}

#[derive(Row, Deserialize)]
struct SortingKey {
    name: String,
    engine_full: String,
    sorting_key: String,
}

impl Client {
    /// Creates the database and the shared tables, or brings them up to date.
    pub(super) async fn migrate(&self) -> Result<(), Error> {
        self.execute("create the database realtime", "CREATE DATABASE IF NOT EXISTS realtime").await?;
        self.execute(
            "create realtime.migrations",
            "CREATE TABLE IF NOT EXISTS realtime.migrations (
                version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
            ) ENGINE = ReplacingMergeTree ORDER BY version",
        )
        .await?;
        let what = "read realtime.migrations";
        let applied: Vec<Applied> =
            self.rows(what, self.query("SELECT DISTINCT version FROM realtime.migrations")).await?;
        let newest = MIGRATIONS.last().map_or(0, |m| m.version);
        if let Some(ahead) = applied.iter().find(|a| a.version > newest) {
            return Err(self.error(
                ErrorKind::Permanent,
                what,
                format!(
                    "the schema has version {}, this program knows {newest}: run the newer program that made it",
                    ahead.version
                ),
            ));
        }
        for migration in MIGRATIONS {
            // Statements run again even where the row is there: a table may have been dropped by hand.
            for statement in migration.statements {
                self.execute(&format!("migrate realtime to version {}", migration.version), statement).await?;
            }
            failpoint::hit("realtime.migrated");
            if !applied.iter().any(|a| a.version == migration.version) {
                let sql = format!(
                    "INSERT INTO realtime.migrations (version, name) VALUES ({}, '{}')",
                    migration.version, migration.name
                );
                self.execute("note a migration", &sql).await?;
            }
        }
        self.check_shared_tables().await
    }

    /// A table that was there before, made by somebody else, would lose rows silently.
    async fn check_shared_tables(&self) -> Result<(), Error> {
        let what = "check realtime.positions and realtime.intents";
        let sql = "SELECT name, engine_full, sorting_key FROM system.tables \
                   WHERE database = 'realtime' AND name IN ('positions', 'intents')";
        for table in self.rows::<SortingKey>(what, self.query(sql)).await? {
            let key = format!("({})", table.sorting_key);
            if !table.engine_full.contains("ReplacingMergeTree(next_offset)") || key != KEY {
                return Err(self.error(
                    ErrorKind::Permanent,
                    what,
                    format!(
                        "realtime.{} is not as it was made (engine {}, key {key}): rename it, and it is made again",
                        table.name, table.engine_full
                    ),
                ));
            }
        }
        Ok(())
    }
}
