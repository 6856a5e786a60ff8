//! What the generator says it made, as the daily figures that gold must serve. It knows nothing of Bronze, silver or gold.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate};

use crate::producer::fault::{Kind, SHIFT_S};
use crate::producer::generator::Written;
use crate::producer::session::EventType;

/// The daily figures as ClickHouse is asked for them, in the order of [`Account::figures`].
pub const FIGURES: [(&str, &str); 4] = [
    ("gold.daily_active_users", "SELECT event_date, dau_count FROM gold.daily_active_users ORDER BY event_date"),
    (
        "gold.events_per_source_daily",
        "SELECT event_date, source, event_count FROM gold.events_per_source_daily ORDER BY event_date, source",
    ),
    (
        "gold.purchases_per_page_daily",
        "SELECT event_date, page, purchase_count FROM gold.purchases_per_page_daily ORDER BY event_date, page",
    ),
    (
        "gold.conversion_rate_daily",
        "SELECT event_date, active_users, purchasing_users FROM gold.conversion_rate_daily ORDER BY event_date",
    ),
];

/// Counts of all records made so far.
#[derive(Debug, Default)]
pub struct Account {
    /// Records of every kind.
    pub records: u64,
    /// Sound events whose time is right or late: those that silver keeps.
    pub kept: u64,
    /// Records that silver refuses: no events, wrong clocks, and copies of the latter.
    pub refused: u64,
    /// Copies of events that silver keeps.
    pub duplicates: u64,
    days: BTreeMap<NaiveDate, Day>,
}

#[derive(Debug, Default)]
struct Day {
    sources: BTreeMap<Vec<u8>, u64>,
    purchases: BTreeMap<Vec<u8>, u64>,
    /// By user.
    users: BTreeSet<u32>,
    buyers: BTreeSet<u32>,
}

impl Account {
    /// Takes a record down: what the generator says of it, its bytes, and the time at which it was made, seconds since
    /// 1970.
    pub fn take(&mut self, written: &Written, value: &[u8], made_at_s: i64) {
        self.records += 1;
        let event_time_s = match written.kind {
            Kind::Malformed | Kind::Future => {
                self.refused += 1;
                return;
            }
            // A copy shares its original's fate, and only a wrong clock is ahead of the record.
            Kind::Duplicate if time_of(value) > made_at_s => {
                self.refused += 1;
                return;
            }
            Kind::Duplicate => {
                self.duplicates += 1;
                return;
            }
            Kind::Late => made_at_s - SHIFT_S,
            Kind::Normal => made_at_s,
        };
        self.kept += 1;
        let date = DateTime::from_timestamp(event_time_s, 0).unwrap_or_default().date_naive();
        let day = self.days.entry(date).or_default();
        count(&mut day.sources, text_of(value, b"\"source\":\""));
        day.users.insert(written.user_id);
        if written.event_type == Some(EventType::Purchase) {
            count(&mut day.purchases, text_of(value, b"\"page\":\""));
            day.buyers.insert(written.user_id);
        }
    }

    /// The figures of [`FIGURES`], each as sorted tab-separated lines.
    pub fn figures(&self) -> [String; 4] {
        let mut figures: [String; 4] = Default::default();
        for (date, day) in &self.days {
            let (users, buyers) = (day.users.len(), day.buyers.len());
            figures[0] += &format!("{date}\t{users}\n");
            for (source, events) in &day.sources {
                figures[1] += &format!("{date}\t{}\t{events}\n", String::from_utf8_lossy(source));
            }
            for (page, purchases) in &day.purchases {
                figures[2] += &format!("{date}\t{}\t{purchases}\n", String::from_utf8_lossy(page));
            }
            figures[3] += &format!("{date}\t{users}\t{buyers}\n");
        }
        figures
    }
}

fn count(counts: &mut BTreeMap<Vec<u8>, u64>, key: &[u8]) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.to_vec(), 1)),
    }
}

/// The text behind a key of a sound event, as the generator writes it: no spaces, nothing escaped.
fn text_of<'a>(value: &'a [u8], key: &[u8]) -> &'a [u8] {
    let start = value.windows(key.len()).position(|w| w == key).map_or(value.len(), |at| at + key.len());
    let rest = &value[start..];
    &rest[..rest.iter().position(|b| *b == b'"').unwrap_or(rest.len())]
}

/// A sound event's time, seconds since 1970.
fn time_of(value: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(text_of(value, b"\"timestamp\":\""));
    chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S").map_or(0, |t| t.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::fault::{Mix, Shares};
    use crate::producer::generator::Generator;

    #[test]
    fn every_record_is_kept_refused_or_a_duplicate() {
        let shares = Shares { late: 0.1, duplicate: 0.1, malformed: 0.1, future: 0.1 };
        let mut generator = Generator::new(1, 50, Mix::new(shares).unwrap());
        let mut account = Account::default();
        let mut value = Vec::new();
        for i in 0..20_000 {
            let at = 1_770_388_200 + i;
            let written = generator.next(at, &mut value);
            account.take(&written, &value, at);
        }
        assert_eq!(account.records, account.kept + account.refused + account.duplicates);
        for (what, count, wanted) in
            [("kept", account.kept, 14_000), ("refused", account.refused, 4_200), ("copies", account.duplicates, 1_800)]
        {
            assert!(count.abs_diff(wanted) < 600, "{what}: {count}");
        }
        let [users, sources, purchases, conversion] = account.figures();
        let last = |text: &str| -> Vec<u64> {
            text.lines().map(|l| l.rsplit('\t').next().unwrap_or_default().parse().unwrap_or_default()).collect()
        };
        assert_eq!(last(&sources).iter().sum::<u64>(), account.kept);
        assert_eq!(users.lines().count(), conversion.lines().count());
        assert!(last(&users).iter().all(|n| *n == 50) && purchases.contains("\t/checkout\t"), "{users}{purchases}");
    }
}
