//! The values in force and where each comes from: admins alone.

use actix_web::{HttpResponse, web};
use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Origin, Setting};
use crate::console::shared::Shared;
use crate::console::view::{View, empty, table, th};
use crate::console::words;

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    find: String,
    /// Anything: only what is no default.
    #[serde(default)]
    changed: String,
}

/// A value as programs read it.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Shown {
    /// Such as `kafka.brokers`.
    key: String,
    /// As JSON; secrets are `***`.
    value: Value,
    /// The default, a file and its line, or a variable of the environment.
    from: String,
}

/// All values.
pub fn values(settings: &[Setting]) -> Vec<Shown> {
    let shown = |s: &Setting| Shown { key: s.path.clone(), value: s.value.clone(), from: s.origin.to_string() };
    settings.iter().map(shown).collect()
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> HttpResponse {
    let fits = |s: &&Setting| {
        (asked.find.is_empty() || s.path.contains(&asked.find) || words::value(&s.value).contains(&asked.find))
            && (asked.changed.is_empty() || s.origin != Origin::Default)
    };
    let wanted: Vec<&Setting> = shared.settings.iter().filter(fits).collect();
    let body = html! {
        h1 { "Configuration" }
        p.lead { "The values this daemon runs with and where each comes from. To change one, edit the file or the environment and restart; "
            code { "boathouse validate" } " checks it before. Secrets are hidden." }
        form.filter method="get" {
            label for="find" { "Contains" } input #find name="find" value=(asked.find) spellcheck="false";
            label { input type="checkbox" name="changed" value="1" checked[!asked.changed.is_empty()]; " only what is no default" }
            button type="submit" { "Filter" }
        }
        @if wanted.is_empty() {
            (empty("No value fits", html! { a href="/configuration" { "Show all" } }))
        } @else {
            (table("Values in force", &["Key", "Value", "From"].map(th), html! {
                @for setting in wanted {
                    tr { th scope="row" { code { (setting.path) } } td.wrap { (words::value(&setting.value)) } td { (setting.origin) } }
                }
            }))
        }
    };
    view.page("Configuration", None, body)
}
