//! The slots of a schedule, and which of them is due: pure, time is an argument.
//!
//! A slot is a moment at which a run is due, in UTC. In the zone of the schedule an hour is left out in spring and
//! comes twice in autumn: a fixed time that is left out runs at the first moment after the gap, and one that comes
//! twice runs once, the first time; a schedule with a wildcard hour runs in each hour that passes.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;

use crate::config::{CatchUp, Schedule};

/// A slot that is noticed this late counts as missed.
const ON_TIME: TimeDelta = TimeDelta::seconds(60);

/// A schedule that cannot be read. The configuration's check finds it earlier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schedule \"{cron}\" in {timezone} cannot be read: {cause}; `boathouse validate` says where it stands")]
pub struct BadSchedule {
    cron: String,
    timezone: String,
    cause: String,
}

/// A schedule, ready to be asked.
#[derive(Debug, Clone)]
pub struct Slots {
    cron: Cron,
    zone: Tz,
    catch_up: CatchUp,
}

impl Slots {
    pub fn new(schedule: &Schedule) -> Result<Self, BadSchedule> {
        let bad =
            |cause: String| BadSchedule { cron: schedule.cron.clone(), timezone: schedule.timezone.clone(), cause };
        Ok(Self {
            cron: Cron::from_str(&schedule.cron).map_err(|e| bad(e.to_string()))?,
            zone: Tz::from_str(&schedule.timezone).map_err(|e| bad(e.to_string()))?,
            catch_up: schedule.catch_up,
        })
    }

    /// The first slot after a moment; none where the pattern never comes again.
    pub fn after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&moment.with_timezone(&self.zone), false).ok()?;
        Some(next.with_timezone(&Utc)).filter(|slot| *slot > moment)
    }

    /// The last slot at or before a moment.
    fn up_to(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let last = self.cron.find_previous_occurrence(&moment.with_timezone(&self.zone), true).ok()?;
        Some(last.with_timezone(&Utc)).filter(|slot| *slot <= moment)
    }

    /// The slot to run now, if one is due: `last` is the newest slot that was run, or the moment since when the
    /// schedule holds.
    pub fn due(&self, last: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.catch_up {
            CatchUp::All => self.after(last).filter(|slot| *slot <= now),
            CatchUp::Latest => self.up_to(now).filter(|slot| *slot > last),
            CatchUp::None => self.up_to(now).filter(|slot| *slot > last && now - *slot <= ON_TIME),
        }
    }

    /// When a slot's run is late.
    pub fn deadline(slot: DateTime<Utc>, schedule: &Schedule) -> DateTime<Utc> {
        slot + TimeDelta::from_std(schedule.deadline).unwrap_or(TimeDelta::days(366))
    }
}

/// How long until a moment; nothing for one that has passed.
pub fn until(moment: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (moment - now).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(cron: &str, timezone: &str, catch_up: CatchUp) -> Slots {
        Slots::new(&Schedule { cron: cron.into(), timezone: timezone.into(), catch_up, ..Schedule::default() }).unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The slots between two moments.
    fn between(slots: &Slots, from: &str, to: &str) -> Vec<String> {
        let (mut now, to) = (at(from), at(to));
        let mut found = Vec::new();
        while let Some(next) = slots.after(now).filter(|s| *s <= to) {
            found.push(next.format("%m-%dT%H:%M").to_string());
            now = next;
        }
        found
    }

    #[test]
    fn an_hour_that_is_left_out_or_comes_twice() {
        let daily = slots("30 2 * * *", "Europe/Berlin", CatchUp::All);
        // Spring: 02:30 does not exist on March 29; the first moment after the gap is 03:00 CEST.
        let spring = between(&daily, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(spring, ["03-28T01:30", "03-29T01:00", "03-30T00:30"]);
        // Autumn: 02:30 comes twice on October 25, in CEST and in CET; it runs once.
        let autumn = between(&daily, "2026-10-24T01:00:00Z", "2026-10-26T02:00:00Z");
        assert_eq!(autumn, ["10-25T00:30", "10-26T01:30"]);
        // Hourly: every hour that passes, through both.
        let hourly = slots("5 * * * *", "Europe/Berlin", CatchUp::All);
        let spring = between(&hourly, "2026-03-29T00:00:00Z", "2026-03-29T04:00:00Z");
        assert_eq!(spring, ["03-29T00:05", "03-29T01:05", "03-29T02:05", "03-29T03:05"]);
        let autumn = between(&hourly, "2026-10-25T00:00:00Z", "2026-10-25T04:00:00Z");
        assert_eq!(autumn, ["10-25T00:05", "10-25T01:05", "10-25T02:05", "10-25T03:05"]);
    }

    #[test]
    fn what_becomes_of_missed_slots() {
        let last = at("2026-02-06T10:05:00Z");
        let now = at("2026-02-06T14:20:00Z");
        let due = |policy, now| slots("5 * * * *", "UTC", policy).due(last, now);
        assert_eq!(due(CatchUp::Latest, now), Some(at("2026-02-06T14:05:00Z")));
        assert_eq!(due(CatchUp::All, now), Some(at("2026-02-06T11:05:00Z")));
        assert_eq!(due(CatchUp::None, now), None);
        let on_time = at("2026-02-06T14:05:03Z");
        assert_eq!(due(CatchUp::None, on_time), Some(at("2026-02-06T14:05:00Z")));
        for policy in [CatchUp::Latest, CatchUp::All, CatchUp::None] {
            assert_eq!(due(policy, last), None);
            assert_eq!(due(policy, at("2026-02-06T11:04:59Z")), None);
            assert_eq!(due(policy, at("2026-02-06T11:05:00Z")), Some(at("2026-02-06T11:05:00Z")));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let schedule = Schedule { timezone: "Mars/Olympus".into(), ..Schedule::default() };
        assert!(Slots::new(&schedule).unwrap_err().to_string().contains("Mars/Olympus"));
        let schedule = Schedule { cron: "61 * * * *".into(), ..Schedule::default() };
        assert!(Slots::new(&schedule).is_err());
    }

    fn any_schedule() -> impl Strategy<Value = (&'static str, &'static str)> {
        (
            prop::sample::select(vec!["5 * * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15,45 1-3 * * SUN"]),
            prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
        )
    }

    proptest! {
        /// Walking a schedule: slots only go forward; asked at any moments, `all` runs each of them once and in
        /// order, `latest` and `none` run some of them, never one twice, and `latest` always ends with the newest.
        #[test]
        fn each_slot_once_whenever_one_looks(
            (cron, zone) in any_schedule(),
            start in 1_770_000_000i64..1_800_000_000,
            looks in prop::collection::vec(1i64..40_000, 1..40),
        ) {
            let begin = DateTime::from_timestamp(start, 0).unwrap();
            for policy in [CatchUp::All, CatchUp::Latest, CatchUp::None] {
                let slots = slots(cron, zone, policy);
                let (mut now, mut last, mut run) = (begin, begin, Vec::new());
                for pause in &looks {
                    now += TimeDelta::seconds(*pause);
                    while let Some(slot) = slots.due(last, now) {
                        prop_assert!(slot > last && slot <= now);
                        last = slot;
                        run.push(slot);
                    }
                }
                let mut every = Vec::new();
                let mut at = begin;
                while let Some(next) = slots.after(at).filter(|s| *s <= now) {
                    prop_assert!(next > at);
                    every.push(next);
                    at = next;
                }
                match policy {
                    CatchUp::All => prop_assert_eq!(&run, &every),
                    CatchUp::Latest => prop_assert_eq!(run.last(), every.last()),
                    CatchUp::None => {}
                }
                prop_assert!(run.iter().all(|slot| every.contains(slot)));
            }
        }
    }
}
