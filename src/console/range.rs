//! The stretch of time that charts show, by its name in the address: a link shows a colleague the same one.

use chrono::TimeDelta;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// How far back charts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
pub enum Range {
    #[serde(rename = "15m")]
    Quarter,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "6h")]
    SixHours,
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "7d")]
    Week,
    #[serde(rename = "30d")]
    Month,
}

/// As an address has it.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
pub struct Asked {
    /// `15m`, `1h`, `6h`, `24h`, `7d` or `30d`.
    #[serde(default)]
    range: String,
}

impl Asked {
    /// The range, or the one that is meant where none is named.
    pub fn or(&self, default: Range) -> Result<Range, Problem> {
        Range::named(&self.range, default)
    }
}

impl Range {
    pub const ALL: [Range; 6] = [Range::Quarter, Range::Hour, Range::SixHours, Range::Day, Range::Week, Range::Month];

    /// The range of a name; an empty one is the default.
    pub fn named(name: &str, default: Range) -> Result<Range, Problem> {
        if name.is_empty() {
            return Ok(default);
        }
        Self::ALL.into_iter().find(|range| range.as_str() == name).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Problem::refused(format!("`{}` is no range of time; there is {all}", super::words::begin(name, 20)))
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Range::Quarter => "15m",
            Range::Hour => "1h",
            Range::SixHours => "6h",
            Range::Day => "24h",
            Range::Week => "7d",
            Range::Month => "30d",
        }
    }

    /// As in "the last …".
    pub fn words(self) -> &'static str {
        match self {
            Range::Quarter => "15 minutes",
            Range::Hour => "hour",
            Range::SixHours => "6 hours",
            Range::Day => "24 hours",
            Range::Week => "7 days",
            Range::Month => "30 days",
        }
    }

    pub fn span(self) -> TimeDelta {
        match self {
            Range::Quarter => TimeDelta::minutes(15),
            Range::Hour => TimeDelta::hours(1),
            Range::SixHours => TimeDelta::hours(6),
            Range::Day => TimeDelta::days(1),
            Range::Week => TimeDelta::days(7),
            Range::Month => TimeDelta::days(30),
        }
    }

    /// Seconds of which the tables of freshness give one value, the greatest.
    pub fn bucket_seconds(self) -> u32 {
        match self {
            Range::Quarter | Range::Hour => 60,
            Range::SixHours => 300,
            Range::Day | Range::Week => 900,
            Range::Month => 3_600,
        }
    }

    /// Seconds of which one cell of a strip tells: a range has few enough to be told apart.
    pub fn cell_seconds(self) -> u32 {
        match self {
            Range::Quarter => 30,
            Range::Hour => 120,
            Range::SixHours => 600,
            Range::Day => 1_800,
            Range::Week => 4 * 3_600,
            Range::Month => 86_400,
        }
    }

    /// The links by which a page is seen over another range.
    pub fn links(self, page: &str) -> Markup {
        html! {
            nav.ranges aria-label="Range of time" {
                @for range in Self::ALL {
                    a.quiet href={ (page) "?range=" (range.as_str()) } aria-current=[(range == self).then_some("true")] {
                        span.sr { "The last " (range.words()) } span aria-hidden="true" { (range.as_str()) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_known_by_its_name_and_what_is_none_is_told() {
        for range in Range::ALL {
            assert_eq!(Range::named(range.as_str(), Range::Hour).unwrap(), range);
            assert_eq!(serde_json::to_value(range).unwrap(), range.as_str());
            let cells = range.span().num_seconds() / i64::from(range.cell_seconds());
            assert!((24..=48).contains(&cells), "{range:?}: {cells}");
        }
        assert_eq!(Range::named("", Range::Week).unwrap(), Range::Week);
        assert!(Range::named("5y", Range::Hour).unwrap_err().text.contains("15m, 1h, 6h, 24h, 7d, 30d"));
    }
}
