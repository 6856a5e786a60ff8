//! The box that takes anything pasted, and goes there.

use actix_web::{HttpResponse, web};
use maud::html;
use serde::Deserialize;

use super::letters::address as record_at;
use super::run_id;
use super::sql::address;
use super::trace::path as trace_of;
use crate::console::problem::Problem;
use crate::console::query::On;
use crate::console::shared::Shared;
use crate::console::view::{View, empty, encoded, go, in_path, page_below};

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    q: String,
}

/// What a text is.
#[derive(Debug, PartialEq)]
enum Kind {
    Run,
    /// A record, as `topic/generation/partition/offset`; without the generation of the newest.
    Record,
    Table,
    /// A view of ClickHouse.
    Realtime,
    Date,
    EventId,
    Unknown,
}

fn kind(text: &str) -> Kind {
    let parts: Vec<&str> = text.split('/').collect();
    let number = |part: &&str| part.parse::<i64>().is_ok_and(|n| n >= 0);
    let (layer, name) = text.split_once('.').unwrap_or_default();
    if text.len() == 23 && text.as_bytes().get(15) == Some(&b'Z') && run_id(text).is_some() {
        Kind::Run
    } else if [3, 4].contains(&parts.len()) && !parts[0].is_empty() && parts[1..].iter().all(number) {
        Kind::Record
    } else if ["bronze", "silver", "gold"].contains(&layer) && !name.is_empty() {
        Kind::Table
    } else if layer == "realtime" && !name.is_empty() {
        Kind::Realtime
    } else if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() {
        Kind::Date
    } else if uuid::Uuid::try_parse(text).is_ok() {
        Kind::EventId
    } else {
        Kind::Unknown
    }
}

fn sql(text: String) -> HttpResponse {
    go(&address(On::Delta, &text))
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let text = asked.q.trim();
    let pipeline = shared.pipelines.first();
    Ok(match (kind(text), pipeline) {
        (Kind::Run, _) => go(&format!("/batch/runs/{text}")),
        (Kind::Record, _) => go(&record_at(text)),
        (Kind::Table, _) => go(&format!("/data/{}", encoded(text))),
        (Kind::Realtime, _) => go(&format!("/data/clickhouse/{}", in_path(text))),
        (Kind::Date, Some(p)) => sql(format!(
            "select event_type, count(*) as events from silver.{} where cast(event_time as date) = date '{text}' group by 1 order by 2 desc",
            p.name
        )),
        (Kind::EventId, _) => go(&trace_of(text)),
        _ => {
            if let Some(page) = page_below(&text.to_lowercase()) {
                return Ok(go(page));
            }
            let body = html! {
                h1 { "Go to" }
                (empty("This is nothing that the box knows", html! {
                    "Paste an event id (a UUID), a record (" code { "topic/generation/partition/offset" } "), a run ("
                    code { "20260206T140500Z-3f9a1c" } "), a table (" code { "silver.user_events" } ") or a date (" code { "2026-02-06" } ")."
                    @if !text.is_empty() { " " a href=(trace_of(text)) { "Look for an event of this id" } "." }
                }))
            };
            view.page("Go to", None, body)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_told_apart() {
        assert_eq!(kind("20260206T140500Z-3f9a1c"), Kind::Run);
        assert_eq!(kind("user-events/0/2/1041"), Kind::Record);
        assert_eq!(kind("user-events/2/1041"), Kind::Record);
        assert_eq!(kind("silver.user_events"), Kind::Table);
        assert_eq!(kind("realtime.events_per_minute"), Kind::Realtime);
        assert_eq!(kind("2026-02-06"), Kind::Date);
        assert_eq!(kind("2f1c6d8e-8d3f-4c8a-9b1e-0a5f2c3d4e5f"), Kind::EventId);
        for other in ["", "hello", "a/b", "2026-02-31", "' or 1=1 --", "x/1/2/-3"] {
            assert_eq!(kind(other), Kind::Unknown, "{other}");
        }
    }
}
