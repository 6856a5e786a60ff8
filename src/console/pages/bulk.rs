//! One correction for many dead letters: which they are, what each would be, and the sending.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use chrono::{SecondsFormat, Utc};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::letter::{new_redriver, refused};
use super::letters::{self, Asked};
use crate::cli::output::safe_bytes;
use crate::config::{AllowedValue, Pipeline};
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{View, empty, encoded, figure, table, th};
use crate::console::words::{self, count};
use crate::letters::edit::Change;
use crate::letters::redrive::Edit;
use crate::letters::redrive::bulk::{LETTERS_MAX, Left, Redriven, SHOWN, Sorted};

/// Characters of a value in the list.
const PREVIEW: usize = 200;

/// Which letters, and how they are corrected.
#[derive(Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Many {
    /// Which: as the list of letters is asked for. Only open ones are taken, the newest 10,000.
    #[serde(default)]
    pub which: Asked,
    /// Fields to set in each; null takes one out. Nothing sends them as they came.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Send also what would be a dead letter again, and what is resolved already.
    #[serde(default)]
    pub force: bool,
}

impl Many {
    /// A search that finds everything is more often a mistake than meant.
    fn checked(self, shared: &Shared) -> Result<Self, Problem> {
        let which = &self.which;
        if which.status.is_empty() && which.reason.is_empty() && which.from.is_empty() {
            return Err(Problem::refused(
                "which letters? Choose them by kind, by reason or by the time of their arrival",
            ));
        }
        if !which.pipeline.is_empty() {
            super::batch::known(shared, &which.pipeline)?;
        }
        Ok(self)
    }

    fn edit(&self, pipeline: &Pipeline) -> anyhow::Result<Edit> {
        let changes = self.set.iter().map(|(field, value)| Change::json(pipeline, field, value.clone()));
        Ok(Edit::Changes(changes.collect::<Result<_, _>>()?))
    }
}

/// What a correction would make of them. Nothing is sent.
pub async fn check(shared: &Shared, many: Many) -> Result<Sorted, Problem> {
    let (many, mut redriver) = (many.checked(shared)?, new_redriver(shared)?);
    let search = many.which.search()?;
    let work = async move { redriver.sort(search, many.force, |pipeline| many.edit(pipeline)).await };
    shared.desk.run(work).await.map_err(refused)
}

/// Sends those that fit.
pub async fn redrive(shared: &Shared, many: Many) -> Result<Redriven, Problem> {
    let (many, mut redriver) = (many.checked(shared)?, new_redriver(shared)?);
    let search = many.which.search()?;
    // Not ended with the request: what is on its way to the topic is told.
    let work = async move {
        let Sorted { fit, left, .. } = redriver.sort(search, many.force, |pipeline| many.edit(pipeline)).await?;
        let sent = redriver.send(&fit, many.force, |_| {}).await?;
        Ok(Redriven { sent, left })
    };
    shared.desk.finish(work).await.map_err(refused)
}

/// The page for the letters of a list.
pub fn address(asked: &Asked) -> String {
    let given = asked.fields().into_iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = given.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    format!("/dead-letters/all?{}", query.join("&"))
}

/// The pipeline whose fields are corrected: the one that is named, or the only one.
fn pipeline<'a>(shared: &'a Shared, asked: &Asked) -> Option<&'a Arc<Pipeline>> {
    match &shared.pipelines[..] {
        [only] if asked.pipeline.is_empty() => Some(only),
        _ => shared.pipeline(&asked.pipeline),
    }
}

/// What is looked for, in words.
fn chosen(asked: &Asked) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in [("Pipeline", &asked.pipeline), ("Kind", &asked.status), ("Reason contains", &asked.reason), ("From", &asked.from), ("Before", &asked.to)] {
                @if !value.is_empty() { div { dt { (name) } dd { (value) } } }
            }
            div { dt { "State" } dd { "open" } }
        }
    }
}

fn crumbs(here: &str) -> Markup {
    html! { p.crumbs { a href="/dead-letters" { "Dead letters" } " / " (here) } }
}

/// Which letters, and the fields of the correction.
pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let of = pipeline(&shared, &asked);
    let bounded = !asked.status.is_empty() || !asked.reason.is_empty() || !asked.from.is_empty();
    let body = html! {
        (crumbs("correct many"))
        h1 { "Correct many letters" }
        p.lead { "The same correction for all that are open. Each is decoded and judged by itself; what would be a dead letter again is left." }
        form.filter method="get" {
            @if shared.pipelines.len() > 1 {
                label for="pipeline" { "Pipeline" }
                select #pipeline name="pipeline" { @for name in shared.pipeline_names() { option value=(name) selected[name == asked.pipeline] { (name) } } }
            }
            (letters::kind(&asked))
            (letters::bounds(&asked))
            button type="submit" { "Choose" }
        }
        @match of {
            None => { p.said { "Choose a pipeline: its fields are what is corrected." } }
            Some(_) if !bounded => { p.said { "Choose letters by their kind, reason or arrival: all there are would be too many for one mistake." } }
            Some(_) if !view.operator() => { p.note { "An operator can correct them and send them again." } }
            Some(of) => { (form(&view, of, &asked)) }
        }
    };
    Ok(view.page("Correct many letters", None, body))
}

fn form(view: &View, pipeline: &Pipeline, asked: &Asked) -> Markup {
    let fields = html! {
        @for (name, value) in asked.fields() { input type="hidden" name=(name) value=(value); }
        div.stack {
            h2 { "Set in each" }
            @for field in &pipeline.fields {
                @let id = format!("field-{}", field.name);
                @let list = field.allowed.as_ref().map(|_| format!("{id}-allowed"));
                label for=(id) { (field.name) }
                input #(id) name={ "field." (field.name) } list=[list.as_deref()] spellcheck="false" autocomplete="off";
                @if let (Some(list), Some(allowed)) = (&list, &field.allowed) {
                    datalist #(list) {
                        @for value in allowed {
                            option value=(match value { AllowedValue::Int(n) => n.to_string(), AllowedValue::Text(t) => t.clone() }) {}
                        }
                    }
                }
            }
            label for="unset" { "Take out" }
            select #unset name="unset" {
                option value="" { "nothing" }
                @for field in &pipeline.fields { option value=(field.name) { (field.name) } }
            }
            p.hint { "What is left empty stays as it came. With nothing set, letters are sent as they came: for those that were refused by a rule which has been changed since." }
            button.primary type="submit" { "Show what they would be" }
        }
    };
    html! { section.card { (view.form("/dead-letters/check-all", fields)) } }
}

/// The correction of a form: `field.NAME` for each field, `unset` for one that goes.
fn of_form(shared: &Shared, form: &[(String, String)]) -> Result<Many, Problem> {
    let find = |name: &str| form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str()).to_owned();
    let which = Asked {
        pipeline: find("pipeline"),
        status: find("status"),
        reason: find("reason"),
        from: find("from"),
        to: find("to"),
        ..Asked::default()
    };
    let of = pipeline(shared, &which).ok_or_else(|| Problem::refused("choose a pipeline first"))?;
    let mut set = BTreeMap::new();
    for (key, value) in form {
        let Some(field) = key.strip_prefix("field.").filter(|_| !value.is_empty()) else { continue };
        let typed = Change::set(of, field, value).map_err(|error| Problem::refused(error.to_string()))?;
        set.insert(field.to_owned(), typed.value.unwrap_or_default());
    }
    let unset = find("unset");
    if !unset.is_empty() {
        set.insert(unset, Value::Null);
    }
    Many { which, set, force: false }.checked(shared)
}

/// Shows what they would be.
pub async fn check_form(
    view: View,
    form: web::Form<Vec<(String, String)>>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let mut many = of_form(&shared, &form)?;
    if many.which.to.is_empty() {
        // What comes after this look has not been seen by anybody.
        many.which.to = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    }
    let sorted = check(&shared, many.clone()).await?;
    let (fit, left) = (sorted.fit.len(), sorted.left.len());
    let body = html! {
        (crumbs("correct many"))
        h1 { "What would be sent" }
        p.lead { "Decoded by the pipeline's own rules. Nothing has been sent yet." }
        (chosen(&many.which))
        dl.figures {
            (figure("Would be sent", &count(fit as i64), "", None))
            (figure("Would be left", &count(left as i64), "", Some("they would be dead letters again")))
        }
        @if sorted.at_limit { p.note { "There are more than " (LETTERS_MAX) ": these are the newest." } }
        @if fit == 0 {
            (empty("Nothing to send", html! { "Another correction may fit: " a href=(address(&many.which)) { "go back" } "." }))
        } @else {
            (table("Would be sent", &["Record", "Verdict", "Would be"].map(th), html! {
                @for prepared in sorted.fit.iter().take(SHOWN) {
                    @let source = prepared.letter.source();
                    tr {
                        th scope="row" { a href=(letters::address(&source)) { (source) } } td { (prepared.foreseen.verdict) }
                        td.wrap { code { (words::begin(&safe_bytes(&prepared.value), PREVIEW)) } }
                    }
                }
            }))
            @if fit > SHOWN { p.note { "And " (count((fit - SHOWN) as i64)) " more." } }
            (view.form("/dead-letters/redrive-all", html! {
                @for (name, value) in many.which.fields() { input type="hidden" name=(name) value=(value); }
                @for (name, value) in form.iter().filter(|(name, _)| name.starts_with("field.") || name == "unset") {
                    input type="hidden" name=(name) value=(value);
                }
                button.primary type="submit" { "Send " (words::plural(fit as i64, "letter", "letters")) " again" }
            }))
        }
        @if left > 0 { h2 { "Would be left" } (left_table(&sorted.left)) }
    };
    Ok(view.page("What would be sent", None, body))
}

fn left_table(left: &[Left]) -> Markup {
    html! {
        (table("Left", &["Record", "Why"].map(th), html! {
            @for Left { source, why } in left.iter().take(SHOWN) {
                tr { th scope="row" { a href=(letters::address(source)) { (source) } } td.wrap { (why) } }
            }
        }))
        @if left.len() > SHOWN { p.note { "And " (count((left.len() - SHOWN) as i64)) " more." } }
    }
}

/// Sends them, and tells what was sent.
pub async fn redrive_form(
    view: View,
    form: web::Form<Vec<(String, String)>>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let done = redrive(&shared, of_form(&shared, &form)?).await?;
    let body = html! {
        (crumbs("sent"))
        h1 { "Sent again" }
        p.said.good role="status" {
            (words::plural(done.sent.len() as i64, "letter was", "letters were")) " sent again, " (count(done.left.len() as i64))
            " left. Each is resolved once Bronze has its correction: " a href="/dead-letters?state=open" { "what is open still" } "."
        }
        @if !done.sent.is_empty() {
            (table("Sent", &["Record", "Sent as"].map(th), html! {
                @for sent in done.sent.iter().take(SHOWN) {
                    tr {
                        th scope="row" { a href=(letters::address(&sent.origin)) { (sent.origin) } }
                        td { (sent.topic) "/" (sent.partition) "/" (sent.offset) }
                    }
                }
            }))
            @if done.sent.len() > SHOWN { p.note { "And " (count((done.sent.len() - SHOWN) as i64)) " more." } }
        }
        @if !done.left.is_empty() { h2 { "Left" } (left_table(&done.left)) }
    };
    Ok(view.page("Sent again", None, body))
}
