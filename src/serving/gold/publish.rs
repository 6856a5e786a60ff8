//! A run's rows, and the insert that shows them.

use bytes::{BufMut, Bytes, BytesMut};
use clickhouse::Row;
use serde::Deserialize;

use super::super::client::Client;
use super::super::error::Error;
use super::rows::put_text;
use super::{ServedModel, table};

/// Bits of a published version that hold silver's version; those above count how often silver was made again or the
/// models changed, after which an equal or lower version of silver must win all the same.
const SILVER_BITS: u32 = 40;
/// How long rows that are not published stay, at least: a run may still be about to publish them, and a query that
/// has begun may still read them. Hours.
const KEEP_HOURS: u32 = 6;
/// ClickHouse's error of a column that a table has not.
const UNKNOWN_IDENTIFIER: u32 = 47;

/// What a publication is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilverMark {
    /// The id of silver's table.
    pub table: String,
    pub version: u64,
    /// Tells two commits of the same version from each other, as of a silver that was restored; 0 where it is not known.
    pub entry: u64,
    /// Changes when a served model does.
    pub models: String,
}

/// The newest publication that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldStanding {
    pub mark: SilverMark,
    pub run_id: String,
    /// See [`Publication::version`].
    pub version: u64,
}

/// How far a pipeline's publications have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoldSteps {
    pub standing: Option<GoldStanding>,
    /// What the newest one is made from, where it has not come to its end: dates of it may be shown already.
    pub begun: Option<SilverMark>,
}

/// A publication that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub pipeline: String,
    pub mark: SilverMark,
    /// The id under which the rows are written: the run's, and what they were made from. A run that is tried again
    /// with the same tables writes the same rows again, which changes nothing.
    pub rows_id: String,
    /// Decides between two publications of a date.
    pub version: u64,
}

#[derive(Row, Deserialize)]
struct Progress {
    version: u64,
    silver_table: String,
    silver_version: u64,
    silver_entry: u64,
    models: String,
    run_id: String,
    complete: u8,
}

impl Progress {
    fn mark(&self) -> SilverMark {
        SilverMark {
            table: self.silver_table.clone(),
            version: self.silver_version,
            entry: self.silver_entry,
            models: self.models.clone(),
        }
    }
}

#[derive(Row, Deserialize)]
struct Day {
    /// Days since 1970.
    day: u16,
}

impl Client {
    /// The newest publication that came to its end, if none has begun since that starts from nothing.
    pub async fn gold_standing(&self, pipeline: &str) -> Result<Option<GoldStanding>, Error> {
        Ok(self.gold_steps(pipeline).await?.standing)
    }

    /// How far publications have come.
    pub async fn gold_steps(&self, pipeline: &str) -> Result<GoldSteps, Error> {
        let steps = self.gold_progress(pipeline).await?;
        let Some(newest) = steps.first() else { return Ok(GoldSteps::default()) };
        let incarnation = newest.version >> SILVER_BITS;
        let begun = (newest.complete == 0).then(|| newest.mark());
        let complete = steps.iter().find(|p| p.complete == 1 && p.version >> SILVER_BITS == incarnation);
        let standing = complete.map(|p| GoldStanding { mark: p.mark(), run_id: p.run_id.clone(), version: p.version });
        Ok(GoldSteps { standing, begun })
    }

    /// The newest steps first.
    async fn gold_progress(&self, pipeline: &str) -> Result<Vec<Progress>, Error> {
        let read = async |entry: &str| -> Result<Vec<Progress>, Error> {
            let sql = format!(
                "SELECT version, silver_table, silver_version, {entry} AS silver_entry, models, run_id, complete \
                 FROM gold.progress FINAL WHERE pipeline = ? ORDER BY version DESC LIMIT 1000"
            );
            self.rows("read gold.progress", self.query(&sql).bind(pipeline)).await
        };
        match read("silver_entry").await {
            // An earlier version made the table, and none of this one has published yet, which adds the column.
            Err(e) if e.code == Some(UNKNOWN_IDENTIFIER) => read("toUInt64(0)").await,
            found => found,
        }
    }

    /// Begins a publication: takes its version, above those of everything that was made from an earlier silver table
    /// or from other models. `from_nothing`: what was published before may be gone, so that this one must win even over
    /// what was made from the same tables.
    pub async fn begin_publication(
        &self,
        pipeline: &str,
        run_id: &str,
        mark: SilverMark,
        from_nothing: bool,
    ) -> Result<Publication, Error> {
        let newest = self.gold_progress(pipeline).await?.into_iter().next();
        let query = self.query("SELECT max(version) AS n FROM gold.published WHERE pipeline = ?").bind(pipeline);
        let shown: Vec<Count> = self.rows("read gold.published", query).await?;
        let shown = shown.first().map_or(0, |c| c.n) >> SILVER_BITS;
        let incarnation = match newest {
            Some(p)
                if !from_nothing
                    && p.silver_table == mark.table
                    && p.models == mark.models
                    && p.version >> SILVER_BITS >= shown =>
            {
                p.version >> SILVER_BITS
            }
            Some(p) => (p.version >> SILVER_BITS).max(shown) + 1,
            // With dates shown and no progress noted, somebody has dropped the table: this one must win.
            None if self.published_days(pipeline).await?.is_empty() => 0,
            None => shown + 1,
        };
        let version = (incarnation << SILVER_BITS) | (mark.version & ((1 << SILVER_BITS) - 1));
        let publication =
            Publication { pipeline: pipeline.to_owned(), rows_id: format!("{run_id}@{version}"), version, mark };
        self.note_gold_progress(&publication, run_id, false).await?;
        Ok(publication)
    }

    /// Notes that every date is published as of this publication.
    pub async fn complete_publication(&self, publication: &Publication, run_id: &str) -> Result<(), Error> {
        self.note_gold_progress(publication, run_id, true).await
    }

    async fn note_gold_progress(&self, of: &Publication, run_id: &str, complete: bool) -> Result<(), Error> {
        let mut row = BytesMut::new();
        put_text(&mut row, &of.pipeline);
        row.put_u64_le(of.version);
        put_text(&mut row, &of.mark.table);
        row.put_u64_le(of.mark.version);
        row.put_u64_le(of.mark.entry);
        put_text(&mut row, &of.mark.models);
        put_text(&mut row, run_id);
        row.put_u8(u8::from(complete));
        let into =
            "gold.progress (pipeline, version, silver_table, silver_version, silver_entry, models, run_id, complete)";
        self.insert("note gold's progress", into, row.freeze()).await
    }

    /// Inserts rows of a publication, in the RowBinary of [`super::gold_row_binary`] under its
    /// [`Publication::rows_id`]. One insert spans at most 60 dates. Nobody sees them yet.
    pub async fn insert_gold_rows(&self, model: &ServedModel, rows: Bytes) -> Result<(), Error> {
        let name = model.rows_table();
        let into = format!("{} (run_id, {})", table(&name), model.column_list());
        self.insert(&format!("insert into gold.{name}"), &into, rows).await
    }

    /// Shows the publication's rows of these dates (days since 1970) in all views at once.
    pub async fn publish_gold_dates(&self, of: &Publication, days: &[u16]) -> Result<(), Error> {
        if days.is_empty() {
            return Ok(());
        }
        let mut rows = BytesMut::new();
        for day in days {
            put_text(&mut rows, &of.pipeline);
            rows.put_u16_le(*day);
            put_text(&mut rows, &of.rows_id);
            rows.put_u64_le(of.version);
            rows.put_u64_le(of.mark.version);
        }
        // A few thousand dates at most: one block, which is there whole or not at all.
        let into = "gold.published (pipeline, event_date, run_id, version, silver_version)";
        self.insert("insert into gold.published", into, rows.freeze()).await
    }

    /// The dates that are published, as days since 1970.
    pub async fn published_days(&self, pipeline: &str) -> Result<Vec<u16>, Error> {
        let query = self
            .query("SELECT DISTINCT toUInt16(event_date) AS day FROM gold.published WHERE pipeline = ? ORDER BY day")
            .bind(pipeline);
        Ok(self.rows::<Day>("read gold.published", query).await?.into_iter().map(|d| d.day).collect())
    }

    /// The dates that a publication showed and that nothing newer has replaced, as days since 1970.
    pub async fn days_of_version(&self, pipeline: &str, version: u64) -> Result<Vec<u16>, Error> {
        let query = self
            .query(
                "SELECT toUInt16(event_date) AS day FROM gold.published FINAL WHERE pipeline = ? AND version = ? \
                 ORDER BY day",
            )
            .bind(pipeline)
            .bind(version);
        Ok(self.rows::<Day>("read gold.published", query).await?.into_iter().map(|d| d.day).collect())
    }

    /// What a view shows of these days, in the RowBinary of [`super::gold_row_binary`] without a run's id, in the order
    /// of the grain.
    pub async fn served_rows(&self, model: &ServedModel, days: &[u16]) -> Result<Bytes, Error> {
        let order: Vec<String> = model.order().map(|c| format!("`{c}`")).collect();
        let sql = format!("SELECT {} {} ORDER BY {}", model.column_list(), of_days(model), order.join(", "));
        self.row_binary(&format!("read gold.{}", model.view), self.query(&sql).bind(days)).await
    }

    /// The number of rows that a view shows of these days.
    pub async fn count_served(&self, model: &ServedModel, days: &[u16]) -> Result<u64, Error> {
        let query = self.query(&format!("SELECT count() AS n {}", of_days(model))).bind(days);
        let counts: Vec<Count> = self.rows(&format!("count gold.{}", model.view), query).await?;
        Ok(counts.first().map_or(0, |c| c.n))
    }

    /// Removes rows that no view shows any more, some hours after they were written.
    pub async fn clean_gold(&self, pipeline: &str, models: &[ServedModel]) -> Result<(), Error> {
        for model in models {
            for name in self.rows_tables(&model.view).await? {
                let date = &model.date;
                let stale = format!(
                    "written_at < now() - INTERVAL {KEEP_HOURS} HOUR AND (`{date}`, run_id) NOT IN \
                     (SELECT event_date, run_id FROM gold.published FINAL WHERE pipeline = {})",
                    super::literal(pipeline)
                );
                let what = format!("remove rows of earlier runs from gold.{name}");
                let any = self.query(&format!("SELECT count() AS n FROM {} WHERE {stale}", table(&name)));
                if self.rows::<Count>(&what, any).await?.iter().any(|c| c.n > 0) {
                    self.execute(&what, &format!("DELETE FROM {} WHERE {stale}", table(&name))).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes the dates before a day (since 1970) out of all views at once; how many. Their rows go with the next
    /// [`Self::clean_gold`].
    pub async fn forget_gold_before(&self, pipeline: &str, day: u16) -> Result<usize, Error> {
        let old = self.published_days(pipeline).await?.into_iter().filter(|d| *d < day).count();
        if old > 0 {
            let which = format!("pipeline = {} AND toUInt16(event_date) < {day}", super::literal(pipeline));
            self.execute("take old dates out of gold.published", &format!("DELETE FROM gold.published WHERE {which}"))
                .await?;
        }
        Ok(old)
    }

    /// Keeps how fresh a layer is. Times in microseconds since 1970.
    pub async fn note_gold_freshness(&self, rows: &[LayerFreshness<'_>]) -> Result<(), Error> {
        let mut buffer = BytesMut::new();
        for row in rows {
            put_text(&mut buffer, row.pipeline);
            put_text(&mut buffer, row.layer);
            buffer.put_i64_le(row.observed_at / 1000);
            match row.newest_event_time {
                Some(newest) => {
                    buffer.put_u8(0);
                    buffer.put_i64_le(newest);
                    buffer.put_u8(0);
                    buffer.put_f64_le((row.observed_at - newest) as f64 / 1e6);
                }
                None => buffer.put_slice(&[1, 1]),
            }
            buffer.put_u64_le(row.table_version);
            put_text(&mut buffer, row.run_id);
        }
        let into =
            "gold.freshness (pipeline, layer, observed_at, newest_event_time, lag_seconds, table_version, run_id)";
        self.insert("insert into gold.freshness", into, buffer.freeze()).await
    }
}

/// `FROM` a view `WHERE` its date is one of those that are bound.
pub(super) fn of_days(model: &ServedModel) -> String {
    format!("FROM {} WHERE toUInt16(`{}`) IN ?", table(&model.view), model.date)
}

/// How fresh a layer was at some time.
#[derive(Debug, Clone, Copy)]
pub struct LayerFreshness<'a> {
    pub pipeline: &'a str,
    /// bronze, silver or gold
    pub layer: &'a str,
    /// Microseconds since 1970.
    pub observed_at: i64,
    /// The newest event in the layer, microseconds since 1970.
    pub newest_event_time: Option<i64>,
    pub table_version: u64,
    pub run_id: &'a str,
}

#[derive(Row, Deserialize)]
struct Count {
    n: u64,
}
