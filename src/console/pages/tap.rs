//! The live tap: events as they come, decoded and filtered. Without a script a page of the newest.

use actix_web::{HttpResponse, web};
use chrono::DateTime;
use maud::{Markup, html};
use serde::Deserialize;

use super::letters::address;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::tap::{self, KEPT, Picture};
use crate::console::view::{State, View, badge, part, table, th};
use crate::console::words::{self, count};
use crate::tap::{BadCondition, Condition, Wanted};

/// Characters of a record that is no event.
const PREVIEW: usize = 200;
const VERDICTS: [&str; 4] = ["ok", "late", "future", "unparsed"];

#[derive(Clone, Deserialize, Default, schemars::JsonSchema)]
pub struct Asked {
    /// The pipeline; the first one without it.
    #[serde(default)]
    pipeline: String,
    /// The partition; all without it.
    #[serde(default)]
    partition: String,
    /// `ok`, `late`, `future` or `unparsed`; all without it.
    #[serde(default)]
    verdict: String,
    /// Conditions that must all hold, separated by spaces: `event_type=purchase user_id>90 page~check`.
    #[serde(default)]
    r#where: String,
    /// Anything: the newest now, instead of what comes.
    #[serde(default)]
    #[schemars(skip)]
    last: String,
}

impl Asked {
    pub fn read(&self, shared: &Shared) -> Result<tap::Asked, Problem> {
        let pipeline = match self.pipeline.as_str() {
            "" => shared.pipelines.first(),
            name => {
                super::batch::known(shared, name)?;
                shared.pipeline(name)
            }
        };
        let pipeline = pipeline.cloned().ok_or_else(|| Problem::missing("there is no pipeline"))?;
        let partition = match self.partition.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| Problem::refused(format!("`{text}` is no partition")))?),
        };
        let conditions: Result<Vec<Condition>, BadCondition> =
            self.r#where.split_whitespace().map(str::parse).collect();
        let verdicts = match self.verdict.as_str() {
            "" => Vec::new(),
            known if VERDICTS.contains(&known) => vec![known.to_owned()],
            other => {
                return Err(Problem::refused(format!("`{other}` is no verdict; they are {}", VERDICTS.join(", "))));
            }
        };
        let conditions = conditions.map_err(|error| Problem::refused(error.to_string()))?;
        let wanted = Wanted { conditions, verdicts };
        wanted.check(&pipeline).map_err(|error| Problem::refused(error.to_string()))?;
        Ok(tap::Asked { pipeline, partition, wanted })
    }

    /// As it stands in an address.
    fn query(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("pipeline", &self.pipeline)
            .append_pair("partition", &self.partition)
            .append_pair("verdict", &self.verdict)
            .append_pair("where", &self.r#where)
            .finish()
    }
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let read = asked.read(&shared)?;
    let live = asked.last.is_empty();
    let query = asked.query();
    let first = html! {
        p.crumbs { a href="/stream" { "Stream" } " / tap" }
        h1 { "Events as they come" }
        p.lead { "Read from the topic itself and decoded as the stream decodes them; nothing is slowed or changed by looking." }
        form.filter method="get" {
            @if shared.pipelines.len() > 1 {
                label for="pipeline" { "Pipeline" }
                select #pipeline name="pipeline" {
                    @for name in shared.pipeline_names() { option value=(name) selected[name == read.pipeline.name] { (name) } }
                }
            }
            label for="partition" { "Partition" }
            input #partition name="partition" inputmode="numeric" size="4" value=(asked.partition) autocomplete="off";
            label for="verdict" { "Verdict" }
            select #verdict name="verdict" {
                option value="" { "all" }
                @for verdict in VERDICTS { option value=(verdict) selected[verdict == asked.verdict] { (verdict) } }
            }
            label for="where" { "Where" }
            input #where name="where" size="36" value=(asked.r#where) placeholder="event_type=purchase user_id>90" autocomplete="off"
                spellcheck="false" aria-describedby="where-hint";
            button type="submit" { "Tap" }
            a href={ "/stream/tap?last=1&" (query) } { "The newest, once" }
        }
        p.hint #where-hint {
            "Conditions, separated by spaces, that must all hold: " code { "field=value" } ", " code { "field!=value" } ", "
            code { "field~text" } ", " code { "field<number" } ", " code { "field>number" } "."
        }
        @if live {
            (part("tap", &html! {
                p.note { "Waiting for the first records. Without JavaScript, " a href={ "/stream/tap?last=1&" (query) } { "look at the newest" } "." }
            }))
        }
    };
    if live {
        return Ok(view.page("Tap", Some(&format!("/live/tap?{query}")), first));
    }
    let rest = async move {
        let picture = tap::newest(&shared, read.clone()).await?;
        Ok(part("tap", &draw(&read, &picture)))
    };
    Ok(view.page_in_two("Tap", None, first, rest))
}

pub async fn live(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    tap::follow(&view, &shared, asked.read(&shared)?, draw)
}

fn draw(asked: &tap::Asked, picture: &Picture) -> Markup {
    html! {
        @if let Some(error) = &picture.error { p.said { (error) } }
        p.note {
            "The newest " (count(picture.newest.len() as i128)) " that fit, of " (count(picture.looked)) " records looked at."
            @if picture.dropped > 0 { " " (count(picture.dropped)) " more were left out: too many came at once." }
        }
        @if !picture.newest.is_empty() {
            (table("Events", &["Record", "Arrived", "Verdict", "Event"].map(th), html! {
                @for seen in picture.newest.iter().take(KEPT) {
                    tr {
                        th scope="row" {
                            a href=(address(&format!("{}/{}/{}", asked.pipeline.topic, seen.partition, seen.offset))) {
                                (seen.partition) "/" (seen.offset)
                            }
                        }
                        td { (DateTime::from_timestamp_millis(seen.timestamp_ms).map_or_else(|| "–".into(), words::clock)) }
                        td { (badge(match seen.verdict { "ok" => State::Good, "late" => State::Watch, _ => State::Wrong }, seen.verdict)) }
                        td.wrap {
                            @match &seen.error {
                                Some((error, value)) => { span.error { (error) } " " code { (words::begin(value, PREVIEW)) } }
                                None => {
                                    @for (name, value) in &seen.event { span.note { (name) } " " code { (words::value(value)) } " " }
                                }
                            }
                        }
                    }
                }
            }))
        }
    }
}
