//! What a model's table needs: decided from what the table and silver's log say, without any data. Pure.

use std::collections::BTreeSet;

use chrono::{Days, NaiveDate};

/// What a model's table says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The fingerprint of the model that its rows were computed with; none for a table that is not there.
    pub fingerprint: Option<String>,
    /// The version of this silver table that its rows were computed from; none if they were never.
    pub silver: Option<u64>,
    /// Mark of that version's log entry, see [`super::super::mark`]; none where none was noted.
    pub silver_mark: Option<u64>,
}

/// What is to be computed of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Its table is as new as silver.
    Nothing,
    /// No date was touched: only silver's version is noted.
    Note,
    /// These dates.
    Dates(BTreeSet<NaiveDate>),
    /// Everything, for this reason.
    Everything(String),
}

/// What happened to silver between a version that was read and the one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// These dates changed.
    Dates(BTreeSet<NaiveDate>),
    /// Its log no longer reaches back.
    TooLongAgo,
    /// The version that was read is another commit now, or not there: silver was restored.
    Replaced,
}

/// Plans one model. `touched` is what changed since the table's version of silver, `reach_days` how many days after a
/// touched date rows may change.
pub fn plan(
    model: &str,
    fingerprint: &str,
    standing: &Standing,
    silver: u64,
    touched: Touched,
    reach_days: u32,
) -> Work {
    let Some(known) = &standing.fingerprint else { return Work::Everything(format!("gold/{model} is not there yet")) };
    if known != fingerprint {
        return Work::Everything(format!("the model {model}, or one that it reads, was changed"));
    }
    let Some(at) = standing.silver else {
        return Work::Everything(format!("gold/{model} was not computed from this silver table yet"));
    };
    if at > silver {
        return Work::Everything(format!("gold/{model} was computed from version {at} of silver, which has {silver}"));
    }
    match touched {
        Touched::Replaced => Work::Everything(format!(
            "version {at} of silver, from which gold/{model} was computed, is another commit now: silver was restored"
        )),
        _ if at == silver => Work::Nothing,
        Touched::TooLongAgo => Work::Everything(format!("silver's log no longer reaches back to version {at}")),
        Touched::Dates(dates) if dates.is_empty() => Work::Note,
        Touched::Dates(dates) => Work::Dates(reached(&dates, reach_days)),
    }
}

/// The dates and so many days after each.
pub fn reached(dates: &BTreeSet<NaiveDate>, days: u32) -> BTreeSet<NaiveDate> {
    dates.iter().flat_map(|date| (0..=days).filter_map(|n| date.checked_add_days(Days::new(n.into())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 2, day).expect("a date")
    }

    fn dates(days: &[u32]) -> BTreeSet<NaiveDate> {
        days.iter().map(|d| date(*d)).collect()
    }

    fn planned(fingerprint: Option<&str>, silver: Option<u64>, touched: Touched) -> Work {
        let standing = Standing { fingerprint: fingerprint.map(Into::into), silver, silver_mark: None };
        plan("dau", "f", &standing, 7, touched, 1)
    }

    #[test]
    fn only_touched_dates_and_those_that_look_back_at_them() {
        assert_eq!(planned(Some("f"), Some(5), Touched::Dates(dates(&[3, 4]))), Work::Dates(dates(&[3, 4, 5])));
        assert_eq!(planned(Some("f"), Some(7), Touched::TooLongAgo), Work::Nothing);
        assert_eq!(planned(Some("f"), Some(5), Touched::Dates(dates(&[]))), Work::Note);
    }

    #[test]
    fn a_wider_plan_says_why() {
        let why = |work| match work {
            Work::Everything(why) => why,
            other => panic!("{other:?}"),
        };
        for at in [5, 7] {
            let restored = why(planned(Some("f"), Some(at), Touched::Replaced));
            assert!(restored.starts_with(&format!("version {at} of silver")), "{restored}");
        }
        assert_eq!(why(planned(None, None, Touched::TooLongAgo)), "gold/dau is not there yet");
        assert_eq!(
            why(planned(Some("e"), Some(7), Touched::TooLongAgo)),
            "the model dau, or one that it reads, was changed"
        );
        assert_eq!(
            why(planned(Some("f"), None, Touched::TooLongAgo)),
            "gold/dau was not computed from this silver table yet"
        );
        assert_eq!(
            why(planned(Some("f"), Some(3), Touched::TooLongAgo)),
            "silver's log no longer reaches back to version 3"
        );
        assert_eq!(
            why(planned(Some("f"), Some(9), Touched::TooLongAgo)),
            "gold/dau was computed from version 9 of silver, which has 7"
        );
    }
}
