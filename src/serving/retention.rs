//! Retention: whole days are dropped. A TTL could take the newest version of a row before an older one.

use super::client::Client;
use super::error::Error;
use super::tables::{Named, table};
use crate::failpoint;
use crate::window::AggregatePlan;

impl Client {
    /// Drops the days of an aggregate's partials that lie wholly beyond its retention at `now` (microseconds since the
    /// epoch). Returns the days dropped, as `20260131`.
    pub async fn drop_expired(&self, plan: &AggregatePlan, now: i64) -> Result<Vec<String>, Error> {
        let Some(keep_from) = plan.keep_from(now) else { return Ok(Vec::new()) };
        let name = plan.partials_table();
        let what = format!("list the days of realtime.{name}");
        let query = self
            .query(
                "SELECT DISTINCT partition AS name FROM system.parts WHERE database = 'realtime' AND table = ? AND active \
                 AND toUInt32OrZero(partition) < toYYYYMMDD(toDateTime(?, 'UTC')) ORDER BY name",
            )
            .bind(name.as_str())
            .bind(keep_from / 1_000_000);
        let days: Vec<String> = self.rows::<Named>(&what, query).await?.into_iter().map(|p| p.name).collect();
        for day in days.iter().filter(|day| day.bytes().all(|b| b.is_ascii_digit())) {
            failpoint::hit("realtime.before_drop_day");
            let sql = format!("ALTER TABLE {} DROP PARTITION {day}", table(&name));
            self.execute(&format!("drop day {day} of realtime.{name}"), &sql).await?;
        }
        Ok(days)
    }
}
