//! One record, whole; and, where it is a dead letter, correcting it and sending it again.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use arrow::array::RecordBatch;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::letters::{self, address, state};
use crate::cli::output::safe_bytes;
use crate::config::{AllowedValue, Pipeline};
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, go, table, th};
use crate::console::words;
use crate::letters::edit::{Change, EditError, last_of_each};
use crate::letters::redrive::{Edit, Marks, Prepared, Redriver, Sent};
use crate::letters::{Letter, place, record, row_as_json};
use crate::telemetry::Status;

/// A letter, and how it is corrected.
#[derive(Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// The letter: `topic/generation/partition/offset`; without the generation the newest.
    pub source: String,
    /// The whole corrected value.
    pub value: Option<String>,
    /// Fields to set, instead of the whole value; null takes one out.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Send it even if it would be a dead letter again, or is resolved already.
    #[serde(default)]
    pub force: bool,
}

impl Correction {
    fn edit(&self, pipeline: &Pipeline) -> Result<Edit, EditError> {
        if let Some(value) = &self.value {
            // Browsers send the lines of a text with two characters at their ends.
            return Ok(Edit::Value(value.replace("\r\n", "\n").trim().as_bytes().to_vec()));
        }
        let changes = self.set.iter().map(|(field, value)| Change::json(pipeline, field, value.clone()));
        Ok(Edit::Changes(changes.collect::<Result<_, _>>()?))
    }
}

/// What prepares and sends corrected events, with what the daemon knows.
pub fn new_redriver(shared: &Shared) -> Result<Redriver, Problem> {
    let known = Status::of(&shared.board, shared.limits).partitions.into_iter();
    let marks: Marks = known.filter_map(|p| Some(((p.pipeline, p.partition), p.mark_us?))).collect();
    Ok(Redriver::new(shared.config(), letters::lake(shared)?, marks))
}

/// What cannot be done with a letter is the caller's to mend.
pub fn refused(error: anyhow::Error) -> Problem {
    Problem::refused(format!("{error:#}"))
}

/// Does work with a redriver on the desk's threads.
async fn redriver<T, F>(shared: &Shared, work: impl FnOnce(Redriver) -> F + Send + 'static) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let redriver = new_redriver(shared)?;
    shared.desk.run(async move { work(redriver).await }).await.map_err(refused)
}

async fn prepare(redriver: &mut Redriver, correction: &Correction) -> anyhow::Result<Prepared> {
    let letter = redriver.letter(&correction.source).await?;
    let edit = correction.edit(redriver.pipeline(&letter.pipeline)?)?;
    redriver.prepare(letter, &edit)
}

/// What would be sent, and what would become of it.
pub async fn check(shared: &Shared, correction: Correction) -> Result<Prepared, Problem> {
    redriver(shared, |mut redriver| async move { prepare(&mut redriver, &correction).await }).await
}

/// Sends a corrected event.
pub async fn redrive(shared: &Shared, correction: Correction) -> Result<Sent, Problem> {
    let mut redriver = new_redriver(shared)?;
    // Not ended with the request: what is on its way to the topic is told.
    let send = async move {
        let prepared = prepare(&mut redriver, &correction).await?;
        redriver.send(&[prepared], correction.force, |_| {}).await
    };
    shared.desk.finish(send).await.map_err(refused)?.pop().ok_or_else(|| Problem::refused("nothing was sent"))
}

/// One record of Bronze, by `topic/generation/partition/offset`.
pub async fn find(shared: &Shared, source: &str) -> anyhow::Result<Map<String, Value>> {
    let (config, lake, source) = (shared.config(), letters::lake(shared)?, source.to_owned());
    let work = async move {
        let (pipeline, batch) = record(&config, &lake, &place(&source)?).await?;
        columns(&pipeline, &batch)
    };
    shared.desk.run(work).await
}

/// The columns of a record, without those that the search adds.
fn columns(pipeline: &str, batch: &RecordBatch) -> anyhow::Result<Map<String, Value>> {
    let mut row = row_as_json(pipeline, batch)?;
    row.retain(|name, _| !name.starts_with("letter_"));
    Ok(row)
}

#[derive(Deserialize)]
pub struct Asked {
    /// `partition/offset` of the event that was just sent.
    #[serde(default)]
    sent: String,
}

/// One record, whole.
pub async fn page(
    view: View,
    source: web::Path<String>,
    asked: web::Query<Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let wanted = source.into_inner();
    let of = place(&wanted).map_err(|error| Problem::missing(format!("{error:#}")))?;
    let sent = asked.sent.split_once('/').and_then(|(p, o)| Some((p.parse::<i32>().ok()?, o.parse::<i64>().ok()?)));
    let title = wanted.clone();
    let is_ours = shared.pipelines.iter().any(|pipeline| pipeline.topic == of.topic);
    let viewer = view.clone();
    let rest = async move {
        let asked = wanted.clone();
        let found = redriver(&shared, |mut redriver| async move {
            let (letter, batch) = redriver.letter_and_row(&asked).await?;
            let row = columns(&letter.pipeline, &batch)?;
            Ok((letter, row))
        });
        let (letter, row) = found.await.map_err(|problem| Problem::missing(problem.text))?;
        Ok(shown_whole(&viewer, &shared, &letter, &row))
    };
    let first = html! {
        p.crumbs { a href="/dead-letters" { "Dead letters" } " / record" }
        h1 { (title) }
        p.lead { "The record as Bronze keeps it." }
        @if let Some((partition, offset)) = sent {
            p.said.good role="status" {
                "Sent again as offset " (offset) " of partition " (partition) ". The letter is resolved once Bronze has that event: "
                a href=(address(&title)) { "look again" } "."
            }
        }
    };
    if is_ours {
        return Ok(view.page_in_two(&title, None, first, rest));
    }
    // A topic of nobody's is most likely a slip: it is told as what is not there.
    let rest = rest.await?;
    Ok(view.page(&title, None, html! { (first) (rest) }))
}

/// A record: the letter that it is, and its columns.
fn shown_whole(view: &View, shared: &Shared, letter: &Letter, row: &Map<String, Value>) -> Markup {
    html! {
        @if letter.is_dead() {
            section.card aria-labelledby="letter-title" {
                div.heading { h2 #letter-title { "Dead letter: " (letter.status) } (state(letter)) }
                p { (letter.reason) }
                @if !letter.resolved_by.is_empty() {
                    p { "Resolved by " @for by in &letter.resolved_by { a href=(address(by)) { (by) } " " } }
                } @else if view.operator() {
                    @if let Some(pipeline) = shared.pipeline(&letter.pipeline) { (forms(view, pipeline, letter)) }
                } @else {
                    p.note { "An operator can correct it and send it again." }
                }
            }
        }
        (table("Record", &["Column", "Value"].map(th), html! {
            @for (name, value) in row { tr { th scope="row" { (name) } td.wrap { code { (words::value(value)) } } } }
        }))
    }
}

/// A field's value as a form shows it; empty where it is not there.
fn shown(known: &[(String, String)], field: &str) -> String {
    let text = known.iter().find(|(key, _)| key == field).map_or("", |(_, text)| text.as_str());
    match serde_json::from_str(text) {
        Ok(Value::String(text)) => text,
        _ => text.to_owned(),
    }
}

/// Both ways to correct it: field by field where it is an object, and the whole value.
fn forms(view: &View, pipeline: &Pipeline, letter: &Letter) -> Markup {
    let value = letter.value.clone().unwrap_or_else(|| b"{}".to_vec());
    let known = last_of_each(&value);
    html! {
        div.two {
            @if let Some(known) = &known {
                (view.form("/dead-letters/check", html! {
                    input type="hidden" name="source" value=(letter.source());
                    div.stack {
                        h3 { "Correct single fields" }
                        @for field in &pipeline.fields {
                            @let id = format!("field-{}", field.name);
                            @let list = field.allowed.as_ref().map(|_| format!("{id}-allowed"));
                            label for=(id) { (field.name) span.note { @if !field.required { " (may be missing)" } } }
                            input #(id) name={ "field." (field.name) } value=(shown(known, &field.name)) list=[list.as_deref()]
                                spellcheck="false" autocomplete="off";
                            @if let (Some(list), Some(allowed)) = (&list, &field.allowed) {
                                datalist #(list) {
                                    @for value in allowed {
                                        option value=(match value { AllowedValue::Int(n) => n.to_string(), AllowedValue::Text(t) => t.clone() }) {}
                                    }
                                }
                            }
                        }
                        p.hint { "What is left empty is not sent. Keys that are no field stay as they are." }
                        button.primary type="submit" { "Check" }
                    }
                }))
            }
            (view.form("/dead-letters/check", html! {
                input type="hidden" name="source" value=(letter.source());
                div.stack {
                    h3 { "Correct the whole value" }
                    (raw(&value))
                    button type="submit" { "Check" }
                }
            }))
        }
        p.note { "Nothing is sent before you have seen what it would be." }
    }
}

fn raw(value: &[u8]) -> Markup {
    html! {
        label for="value" { "Value" }
        textarea #value name="value" rows="8" spellcheck="false" { (String::from_utf8_lossy(value)) }
        @if std::str::from_utf8(value).is_err() {
            p.hint { "It is no UTF-8: the bytes that are no characters show as �. They are: " code { (safe_bytes(value)) } }
        }
    }
}

/// A form as the pages send it: either `value`, or `field.NAME` for each field.
fn correction(before: &[(String, String)], form: &[(String, String)]) -> Correction {
    let find = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let source = find("source").unwrap_or_default();
    let mut set = BTreeMap::new();
    if find("value").is_none() {
        for (key, value) in form {
            let Some(field) = key.strip_prefix("field.") else { continue };
            if shown(before, field) == *value {
                continue;
            }
            set.insert(field.to_owned(), if value.is_empty() { Value::Null } else { Value::from(value.as_str()) });
        }
    }
    Correction { source, value: find("value"), set, force: find("force").is_some() }
}

/// A form's fields with the types of the pipeline.
async fn of_form(shared: &Shared, form: &[(String, String)]) -> Result<Correction, Problem> {
    let source = form.iter().find(|(key, _)| key == "source").map(|(_, v)| v.clone()).unwrap_or_default();
    let letter = redriver(shared, |mut redriver| async move { redriver.letter(&source).await }).await?;
    let before = last_of_each(letter.value.as_deref().unwrap_or(b"{}")).unwrap_or_default();
    let mut correction = correction(&before, form);
    let pipeline = shared.pipeline(&letter.pipeline).ok_or_else(|| Problem::missing("there is no such pipeline"))?;
    for (field, value) in &mut correction.set {
        if let Value::String(text) = value {
            let typed = Change::set(pipeline, field, text).map_err(|error| Problem::refused(error.to_string()))?;
            *value = typed.value.unwrap_or_default();
        }
    }
    Ok(correction)
}

/// Shows what would be sent.
pub async fn check_form(
    view: View,
    form: web::Form<Vec<(String, String)>>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let correction = of_form(&shared, &form).await?;
    let prepared = check(&shared, correction).await?;
    let letter = &prepared.letter;
    let good = prepared.objections().is_empty();
    let source = letter.source();
    let absent = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".into());
    let body = html! {
        p.crumbs { a href="/dead-letters" { "Dead letters" } " / " a href=(address(&source)) { (source) } " / check" }
        h1 { "What would be sent" }
        p.lead { "Decoded by the pipeline's own rules. Nothing has been sent yet." }
        div.well role="status" {
            (badge(if prepared.foreseen.is_good() { State::Good } else { State::Wrong }, prepared.foreseen.verdict))
            span { (prepared.foreseen.text) }
        }
        @for objection in prepared.objections() { p.said { (objection) } }
        section aria-labelledby="diff-title" {
            h2 #diff-title { "What differs" }
            @match &prepared.differences {
                Some(differences) if differences.is_empty() => { p { "Nothing: it is the value as it came." } }
                Some(differences) => {
                    (table("Differences", &["Field", "Came as", "Would be"].map(th), html! {
                        @for d in differences {
                            tr { th scope="row" { (d.field) } td.wrap { code { (absent(&d.before)) } } td.wrap { code { (absent(&d.after)) } } }
                        }
                    }))
                }
                None => {
                    (table("Differences", &["Which", "Value"].map(th), html! {
                        tr { th scope="row" { "Came as" } td.wrap { code { (safe_bytes(letter.value.as_deref().unwrap_or_default())) } } }
                        tr { th scope="row" { "Would be" } td.wrap { code { (safe_bytes(&prepared.value)) } } }
                    }))
                }
            }
        }
        (view.form("/dead-letters/redrive", html! {
            input type="hidden" name="source" value=(source);
            div.stack {
                (raw(&prepared.value))
                @if !good {
                    label { input type="checkbox" name="force" value="yes"; " Send it all the same" }
                }
                div.actions {
                    button.primary type="submit" { "Send it again" }
                    button type="submit" formaction="/dead-letters/check" { "Check anew" }
                }
            }
        }))
    };
    Ok(view.page("What would be sent", None, body))
}

/// Sends it, and shows the letter.
pub async fn redrive_form(
    form: web::Form<Vec<(String, String)>>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let correction = of_form(&shared, &form).await?;
    let sent = redrive(&shared, correction).await?;
    Ok(go(&format!("{}?sent={}/{}", address(&sent.origin), sent.partition, sent.offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_says_what_was_changed_and_nothing_else() {
        let before = last_of_each(br#"{"user_id": 7, "page": "/", "source": "web"}"#).unwrap();
        let form: Vec<(String, String)> = [
            ("source", "t/0/1/2"),
            ("field.user_id", "7"),
            ("field.page", "/new"),
            ("field.source", ""),
            ("field.event_id", ""),
        ]
        .map(|(key, value)| (key.into(), value.into()))
        .into();
        let found = correction(&before, &form);
        assert_eq!(found.source, "t/0/1/2");
        let expected = [("page", Value::from("/new")), ("source", Value::Null)];
        assert_eq!(found.set, expected.map(|(field, value)| (field.to_owned(), value)).into());
        assert!(found.value.is_none() && !found.force);
        let form = [("source", "t/0/1/2"), ("value", "{}\r\n"), ("force", "yes")].map(|(k, v)| (k.into(), v.into()));
        let found = correction(&[], &form);
        assert_eq!((found.value.as_deref(), found.force), (Some("{}\r\n"), true));
    }
}
