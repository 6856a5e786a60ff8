//! An expectation in a model's header: `-- expect some_users: range(dau_count, 1) fail`.

use crate::config::{AllowedValue, Check, Expectation, Origin, Severity};

/// What to write.
pub(super) const HINT: &str = "as in `-- expect NAME: CHECK(…) SEVERITY`: not_null(a, b), unique(a, b), \
     accepted_values(a, x, y), range(a, MIN, MAX) with - for none, relationship(a, gold.b.c), row_count(0.5), \
     freshness(a, 2h); warn (when left out) or fail";

/// Reads what stands behind `expect NAME:`.
pub(super) fn parse(name: &str, text: &str) -> Result<Expectation, String> {
    let wrong = || format!("`{text}` is no expectation");
    let (check, rest) = text.split_once('(').ok_or_else(wrong)?;
    let (arguments, severity) = rest.rsplit_once(')').ok_or_else(wrong)?;
    let check = Check::ALL.iter().find(|(name, _)| *name == check.trim()).map(|(_, check)| *check);
    let check = check.ok_or_else(wrong)?;
    let severity = match severity.trim() {
        "" | "warn" => Severity::Warn,
        "fail" => Severity::Fail,
        "quarantine" => return Err("a model's rows cannot be quarantined: only silver refuses rows".into()),
        other => return Err(format!("the severity `{other}` is none")),
    };
    let arguments: Vec<&str> = arguments.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
    let mut expectation = Expectation {
        origin: Origin::default(),
        name: name.to_owned(),
        check,
        on: None,
        columns: Vec::new(),
        values: None,
        min: None,
        max: None,
        to: None,
        change: None,
        within: None,
        sql: None,
        severity,
    };
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("`{text}` is no number"));
    let bound = |text: &str| if text == "-" { Ok(None) } else { number(text).map(Some) };
    match (check, arguments.as_slice()) {
        (Check::NotNull | Check::Unique, columns @ [_, ..]) => expectation.columns = owned(columns),
        (Check::AcceptedValues, [column, values @ ..]) if !values.is_empty() => {
            expectation.columns = owned(&[column]);
            let value = |v: &&str| v.parse().map_or_else(|_| AllowedValue::Text((*v).to_owned()), AllowedValue::Int);
            expectation.values = Some(values.iter().map(value).collect());
        }
        (Check::Range, [column, least, rest @ ..]) if rest.len() <= 1 => {
            expectation.columns = owned(&[column]);
            expectation.min = bound(least)?;
            expectation.max = rest.first().map_or(Ok(None), |greatest| bound(greatest))?;
        }
        (Check::Relationship, [column, to]) => {
            expectation.columns = owned(&[column]);
            expectation.to = Some((*to).to_owned());
        }
        (Check::RowCount, [change]) => expectation.change = Some(number(change)?),
        (Check::Freshness, [column, within]) => {
            expectation.columns = owned(&[column]);
            let within = humantime::parse_duration(within).map_err(|e| format!("`{within}` is no duration ({e})"))?;
            expectation.within = Some(within);
        }
        _ => return Err(wrong()),
    }
    Ok(expectation)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Expectation {
        parse("x", text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn every_check_is_read() {
        assert_eq!(read("unique(event_date, source) fail").columns, ["event_date", "source"]);
        assert_eq!(read("unique(event_date) fail").severity, Severity::Fail);
        let rates = read("range(rate, 0, 1)");
        assert_eq!((rates.min, rates.max, rates.severity), (Some(0.0), Some(1.0), Severity::Warn));
        assert_eq!((read("range(n, -, 5)").min, read("range(n, 1)").max), (None, None));
        let values = read("accepted_values(source, web, 7)").values;
        assert_eq!(values, Some(vec![AllowedValue::Text("web".into()), AllowedValue::Int(7)]));
        assert_eq!(read("relationship(user_id, gold.dim_users.user_id)").to.as_deref(), Some("gold.dim_users.user_id"));
        assert_eq!(read("row_count(0.5)").change, Some(0.5));
        assert_eq!(read("freshness(last_seen, 2h)").within, Some(Duration::from_secs(7200)));
    }

    #[test]
    fn what_is_none_is_said() {
        assert_eq!(parse("x", "range(a, one)"), Err("`one` is no number".into()));
        assert_eq!(parse("x", "unique()"), Err("`unique()` is no expectation".into()));
        assert_eq!(parse("x", "not_null(a) stop"), Err("the severity `stop` is none".into()));
        assert!(parse("x", "not_null(a) quarantine").is_err());
    }
}
