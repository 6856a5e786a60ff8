//! Who runs a pipeline's batch now: one process at a time, among all that share the history.
//!
//! A holder counts up its lease's beat. Nobody compares clocks of two machines: who wants the lease of a holder that may
//! have died watches, by a clock of its own, whether the beat still moves, and takes over with an update that expects
//! the beat that stood still. Two runs at the same time would be slow and not wrong: progress lives in the tables.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use sqlx::Row;

use super::{History, HistoryError, Run, is_taken, micros};

/// How often a holder beats.
pub const BEAT: Duration = Duration::from_secs(2);
/// A beat that has stood still for this long is a dead holder's; a holder that could not beat for this long stops.
pub const TAKE_OVER_AFTER: Duration = Duration::from_secs(15);

/// What a lease's row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Empty: free.
    pub holder: String,
    pub token: String,
    pub beat: i64,
}

/// A lease that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub pipeline: String,
    pub holder: String,
    /// Tells this holding from any other, also one of the same holder.
    token: String,
}

/// Watches the beats of others. Time is an argument.
#[derive(Debug, Default)]
pub struct LeaseWatch {
    seen: HashMap<String, (String, i64, Instant)>,
}

impl LeaseWatch {
    /// Whether a key's holding (its token and beat) has stood still for [`TAKE_OVER_AFTER`].
    pub fn is_dead(&mut self, key: &str, token: &str, beat: i64, now: Instant) -> bool {
        match self.seen.get(key) {
            Some((t, b, since)) if t == token && *b == beat => now.duration_since(*since) >= TAKE_OVER_AFTER,
            _ => {
                self.seen.insert(key.to_owned(), (token.to_owned(), beat, now));
                false
            }
        }
    }
}

impl History {
    /// Who holds a pipeline; none where nobody ever did.
    pub async fn held(&self, pipeline: &str) -> Result<Option<Held>, HistoryError> {
        let fail = self.error("looking at a lease");
        let row = sqlx::query("SELECT holder, token, beat FROM leases WHERE pipeline = ?")
            .bind(pipeline)
            .fetch_optional(&self.pool)
            .await
            .map_err(&fail)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Held {
            holder: row.try_get("holder").map_err(&fail)?,
            token: row.try_get("token").map_err(&fail)?,
            beat: row.try_get("beat").map_err(&fail)?,
        }))
    }

    /// Takes a pipeline's lease: one that is free, one that `holder` held in an earlier life, or the one that was
    /// found dead. None where somebody else was quicker, or holds it.
    pub async fn take(
        &self,
        pipeline: &str,
        holder: &str,
        found: Option<&Held>,
        dead: bool,
    ) -> Result<Option<Lease>, HistoryError> {
        let fail = self.error("taking a lease");
        let lease = Lease {
            pipeline: pipeline.into(),
            holder: holder.into(),
            token: uuid::Uuid::new_v4().simple().to_string(),
        };
        let taken = match found {
            None => {
                let made = sqlx::query("INSERT INTO leases (pipeline, holder, token, beat) VALUES (?, ?, ?, 0)")
                    .bind(pipeline)
                    .bind(holder)
                    .bind(&lease.token)
                    .execute(&self.pool)
                    .await;
                match made {
                    Ok(_) => 1,
                    Err(e) if is_taken(&e) => 0,
                    Err(e) => return Err(fail(e)),
                }
            }
            Some(held) if held.holder.is_empty() || held.holder == holder || dead => sqlx::query(
                "UPDATE leases SET holder = ?, token = ?, beat = beat + 1 WHERE pipeline = ? AND token = ? AND beat = ?",
            )
            .bind(holder)
            .bind(&lease.token)
            .bind(pipeline)
            .bind(&held.token)
            .bind(held.beat)
            .execute(&self.pool)
            .await
            .map_err(&fail)?
            .rows_affected(),
            Some(_) => 0,
        };
        Ok((taken == 1).then_some(lease))
    }

    /// Takes up the next run of a pipeline, if there is one and nobody else holds the pipeline.
    pub async fn take_up(
        &self,
        pipeline: &str,
        holder: &str,
        watch: &mut LeaseWatch,
    ) -> Result<Option<(Run, Lease)>, HistoryError> {
        if self.next_run(pipeline).await?.is_none() {
            return Ok(None);
        }
        let held = self.held(pipeline).await?;
        let dead = held.as_ref().is_some_and(|h| watch.is_dead(pipeline, &h.token, h.beat, Instant::now()));
        let Some(lease) = self.take(pipeline, holder, held.as_ref(), dead).await? else { return Ok(None) };
        // Looked at once more: only now nobody else runs it, and it may have been run meanwhile.
        match self.next_run(pipeline).await? {
            Some(run) => Ok(Some((run, lease))),
            None => {
                self.release(&lease).await?;
                Ok(None)
            }
        }
    }

    /// Says that the holder lives; false when the lease is another's meanwhile.
    pub async fn beat(&self, lease: &Lease) -> Result<bool, HistoryError> {
        let done = sqlx::query("UPDATE leases SET beat = beat + 1 WHERE pipeline = ? AND token = ?")
            .bind(&lease.pipeline)
            .bind(&lease.token)
            .execute(&self.pool)
            .await
            .map_err(self.error("keeping a lease"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives the lease back; one that is another's meanwhile stays with it.
    pub async fn release(&self, lease: &Lease) -> Result<(), HistoryError> {
        sqlx::query("UPDATE leases SET holder = '', beat = beat + 1 WHERE pipeline = ? AND token = ?")
            .bind(&lease.pipeline)
            .bind(&lease.token)
            .execute(&self.pool)
            .await
            .map_err(self.error("giving a lease back"))?;
        Ok(())
    }

    /// Says that a daemon runs, so that commands leave the work to it.
    pub async fn daemon_beat(&self, instance: &str) -> Result<(), HistoryError> {
        let fail = self.error("saying that the daemon runs");
        let seen = micros(Utc::now());
        let known = sqlx::query("UPDATE daemons SET beat = beat + 1, seen_us = ? WHERE instance = ?")
            .bind(seen)
            .bind(instance)
            .execute(&self.pool)
            .await
            .map_err(&fail)?;
        if known.rows_affected() == 0 {
            sqlx::query("INSERT INTO daemons (instance, beat, seen_us) VALUES (?, 0, ?)")
                .bind(instance)
                .bind(seen)
                .execute(&self.pool)
                .await
                .map_err(&fail)?;
        }
        Ok(())
    }

    /// A daemon stops: its word goes.
    pub async fn daemon_gone(&self, instance: &str) -> Result<(), HistoryError> {
        sqlx::query("DELETE FROM daemons WHERE instance = ?")
            .bind(instance)
            .execute(&self.pool)
            .await
            .map_err(self.error("saying that the daemon stops"))?;
        Ok(())
    }

    /// The beats of all daemons, by instance. One that stands still is of a daemon that was killed.
    pub async fn daemons(&self) -> Result<Vec<(String, i64)>, HistoryError> {
        let fail = self.error("looking for a daemon");
        let rows = sqlx::query("SELECT instance, beat FROM daemons ORDER BY instance")
            .fetch_all(&self.pool)
            .await
            .map_err(&fail)?;
        rows.iter()
            .map(|row| Ok((row.try_get("instance").map_err(&fail)?, row.try_get("beat").map_err(&fail)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_beat_that_stands_still_is_dead() {
        let mut watch = LeaseWatch::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(!watch.is_dead("p", "a", 1, at(0)));
        assert!(!watch.is_dead("p", "a", 1, at(14)));
        assert!(watch.is_dead("p", "a", 1, at(15)));
        assert!(!watch.is_dead("p", "a", 2, at(16)), "it moved");
        assert!(!watch.is_dead("p", "b", 2, at(31)), "another holding");
        assert!(!watch.is_dead("q", "b", 2, at(99)), "another pipeline");
        assert!(watch.is_dead("p", "b", 2, at(46)));
    }
}
