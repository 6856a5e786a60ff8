//! Who did what: admins alone.

use actix_web::{HttpResponse, web};
use maud::html;
use serde::Deserialize;

use crate::console::audit::Entry;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, empty, table, th};
use crate::console::words;

/// Entries that one page or call shows at most.
const ENTRIES_MAX: usize = 1_000;

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Asked {
    /// Only where who, action or detail contains this.
    #[serde(default)]
    find: String,
    /// How many of the newest; 200 without it.
    limit: Option<usize>,
}

/// The newest entries that fit.
pub async fn entries(shared: &Shared, asked: &Asked) -> Result<Vec<Entry>, Problem> {
    let (audit, find) = (shared.audit.clone(), asked.find.clone());
    let limit = asked.limit.unwrap_or(200).min(ENTRIES_MAX);
    let all = if find.is_empty() { limit } else { usize::MAX };
    let read = web::block(move || audit.newest(all)).await;
    let found = read.map_err(|e| Problem::from(anyhow::anyhow!(e)))??;
    let fits = |entry: &Entry| [&entry.who, &entry.action, &entry.detail].iter().any(|text| text.contains(&find));
    Ok(found.into_iter().filter(fits).take(limit).collect())
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let entries = entries(&shared, &asked).await?;
    let body = html! {
        h1 { "Audit log" }
        p.lead { "Every action and every sign-in, newest first, times in UTC. Passwords and tokens are not kept." }
        form.filter method="get" {
            label for="find" { "Contains" } input #find name="find" value=(asked.find) spellcheck="false";
            button type="submit" { "Filter" }
        }
        @if entries.is_empty() {
            (empty("No entry", html! { "What somebody does here or by the API is noted at once." }))
        } @else {
            (table("Audit log", &["When", "Who", "From", "Action", "Answer", "Detail"].map(th), html! {
                @for entry in &entries {
                    @let state = if entry.status < 400 { State::Good } else { State::Wrong };
                    tr {
                        td { (words::moment(entry.at)) } th scope="row" { (entry.who) } td { (entry.from) } td { (entry.action) }
                        td { (badge(state, &entry.status.to_string())) } td.wrap { (entry.detail) }
                    }
                }
            }))
        }
    };
    Ok(view.page("Audit log", None, body))
}
