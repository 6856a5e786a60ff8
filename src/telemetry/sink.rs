//! Whether a sink takes what it is given. A sink that all pipelines share is one to those who look, and is as well as the
//! pipeline that fares worst with it.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Whether a sink takes what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "condition")]
pub enum SinkCondition {
    Healthy,
    /// It fails and is tried again; expected to heal by itself.
    Retrying {
        error: String,
    },
    /// It refuses our name or password: nothing is dropped, and somebody must act.
    Refused {
        error: String,
    },
}

impl SinkCondition {
    pub fn as_str(&self) -> &'static str {
        match self {
            SinkCondition::Healthy => "healthy",
            SinkCondition::Retrying { .. } => "retrying",
            SinkCondition::Refused { .. } => "refused",
        }
    }

    /// The error, where there is one.
    pub fn error(&self) -> Option<&str> {
        match self {
            SinkCondition::Healthy => None,
            SinkCondition::Retrying { error } | SinkCondition::Refused { error } => Some(error),
        }
    }

    fn severity(&self) -> u8 {
        match self {
            SinkCondition::Healthy => 0,
            SinkCondition::Retrying { .. } => 1,
            SinkCondition::Refused { .. } => 2,
        }
    }

    /// Says whose it is.
    fn of(self, pipeline: &str) -> Self {
        let named = |error| format!("pipeline {pipeline}: {error}");
        match self {
            SinkCondition::Healthy => SinkCondition::Healthy,
            SinkCondition::Retrying { error } => SinkCondition::Retrying { error: named(error) },
            SinkCondition::Refused { error } => SinkCondition::Refused { error: named(error) },
        }
    }
}

/// The live state of one sink, such as `bronze/user_events` or `clickhouse`.
#[derive(Debug, Clone)]
pub struct SinkState {
    pub condition: SinkCondition,
    /// When it came into this condition.
    pub since: Instant,
}

/// A sink's state, of what each pipeline says of it: the worst, since the first came into it. Who is alone with it is named.
pub(super) fn worst(told: Vec<(String, SinkState)>) -> Option<SinkState> {
    let severity = told.iter().map(|(_, state)| state.condition.severity()).max()?;
    let pipelines = told.len();
    let mut alike: Vec<_> = told.into_iter().filter(|(_, s)| s.condition.severity() == severity).collect();
    alike.sort_by(|a, b| (a.1.since, &a.0).cmp(&(b.1.since, &b.0)));
    let only_some = alike.len() < pipelines;
    // Healthy it is since the last came to be so.
    let (pipeline, state) = if severity == 0 { alike.pop()? } else { alike.swap_remove(0) };
    let condition = if only_some { state.condition.of(&pipeline) } else { state.condition };
    Some(SinkState { condition, since: state.since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_worst_counts_and_the_longest_of_it() {
        let begin = Instant::now();
        let state = |seconds, condition| SinkState { condition, since: begin + Duration::from_secs(seconds) };
        let retrying = |error: &str| SinkCondition::Retrying { error: error.into() };
        let seen = |told: &[(&str, SinkState)]| {
            let told = told.iter().map(|(pipeline, state)| ((*pipeline).to_owned(), state.clone())).collect();
            worst(told).map(|state| (state.condition, (state.since - begin).as_secs()))
        };
        assert_eq!(seen(&[]), None);
        let (a, b) = (("a", state(1, SinkCondition::Healthy)), ("b", state(2, SinkCondition::Healthy)));
        assert_eq!(seen(&[a.clone(), b]), Some((SinkCondition::Healthy, 2)));
        assert_eq!(seen(&[a.clone(), ("b", state(3, retrying("away")))]), Some((retrying("pipeline b: away"), 3)));
        let both = [("a", state(5, retrying("away"))), ("b", state(3, retrying("away")))];
        assert_eq!(seen(&both), Some((retrying("away"), 3)));
        let refused = SinkCondition::Refused { error: "516".into() };
        let [_, b] = both;
        let worse = SinkCondition::Refused { error: "pipeline c: 516".into() };
        assert_eq!(seen(&[a, b, ("c", state(9, refused))]), Some((worse, 9)));
    }
}
