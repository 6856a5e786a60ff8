//! A pipeline or partition that has stopped until somebody decides: why, the choices that resolve it, each with what it
//! would do, and the doing.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, SubsecRound as _, Utc};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::batch::known;
use crate::config::Pipeline;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, encoded, go};
use crate::mend::{Choice, NAMES, Outlook, carry_out, look};
use crate::telemetry::{ActorPhase, PartitionPhase, Status};

/// How long the stream may take to stand still: a drain takes seconds.
const STANDS: Duration = Duration::from_secs(60);
/// How long a look may take, which asks Kafka.
const LOOK: Duration = Duration::from_secs(30);

#[derive(Clone, Deserialize, schemars::JsonSchema)]
pub struct Which {
    /// The pipeline.
    pipeline: String,
    /// For `lower-mark`: the greatest event time that is to count as seen, RFC 3339; now without it.
    #[serde(default)]
    to: String,
}

/// What somebody decides.
#[derive(Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The pipeline.
    pub pipeline: String,
    /// `accept-gap`, `accept-bad-records`, `accept-bad-backlog`, `adopt-topic`, `accept-settings`, `lower-mark` or
    /// `repair-log`.
    pub choice: String,
    /// For `lower-mark`: the greatest event time that is to count as seen, RFC 3339.
    #[serde(default)]
    pub to: String,
    /// For `accept-gap`: this partition alone; without it every one that lies behind the start of its log.
    #[serde(default)]
    pub partition: Option<i32>,
    /// Although the look says that somebody must insist.
    #[serde(default)]
    pub even_so: bool,
}

/// What was done.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Done {
    pub pipeline: String,
    pub done: Vec<String>,
}

fn moment(text: &str) -> Result<Option<DateTime<Utc>>, Problem> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let wrong = || Problem::refused(format!("`{text}` is no time; write 2026-02-06T14:30:00Z"));
    // A browser's field has neither seconds nor a zone.
    let plain = || chrono::NaiveDateTime::parse_from_str(text.trim(), "%Y-%m-%dT%H:%M").ok().map(|t| t.and_utc());
    text.trim().parse().ok().or_else(plain).map(Some).ok_or_else(wrong)
}

fn pipeline(shared: &Shared, name: &str) -> Result<Arc<Pipeline>, Problem> {
    known(shared, name)?;
    shared.pipeline(name).cloned().ok_or_else(|| Problem::missing("there is no such pipeline"))
}

/// What a choice would do, or why that cannot be said.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Looked {
    Known(Outlook),
    Unknown { choice: &'static str, meaning: &'static str, error: String },
}

/// Every choice with what it would do. Changes nothing.
pub async fn choices(shared: &Shared, which: &Which) -> Result<Vec<Looked>, Problem> {
    let pipeline = pipeline(shared, &which.pipeline)?;
    let to = moment(&which.to)?.unwrap_or_else(|| Utc::now().trunc_subsecs(0));
    let config = shared.config();
    let work = async move {
        let choices: Vec<Choice> =
            NAMES.iter().map(|name| Choice::named(name, false, Some(to), None)).collect::<Result<_, _>>()?;
        // Each asks Kafka by itself, and none waits for another.
        let looks = choices.into_iter().map(|choice| {
            let (config, pipeline) = (config.clone(), pipeline.clone());
            async move {
                match tokio::time::timeout(LOOK, look(&config, &pipeline, choice)).await {
                    Ok(Ok(outlook)) => Looked::Known(outlook),
                    Ok(Err(error)) => unknown(choice, format!("{error:#}")),
                    Err(_) => unknown(choice, "Kafka or the table does not answer".to_owned()),
                }
            }
        });
        Ok(futures::future::join_all(looks).await)
    };
    Ok(shared.desk.run(work).await?)
}

fn unknown(choice: Choice, error: String) -> Looked {
    Looked::Unknown { choice: choice.name(), meaning: choice.meaning(), error }
}

/// Lets the stream stand still, does it, and lets the stream begin anew.
pub async fn decide(shared: &Shared, decision: Decision) -> Result<Done, Problem> {
    let pipeline = pipeline(shared, &decision.pipeline)?;
    let to = moment(&decision.to)?;
    let refused = |error: anyhow::Error| Problem::refused(format!("{error:#}"));
    let choice = Choice::named(&decision.choice, decision.even_so, to, decision.partition).map_err(refused)?;
    let standstill = shared.standstills.get(&pipeline.name).cloned().unwrap_or_default();
    let config = shared.config();
    let name = pipeline.name.clone();
    // Nobody does by mistake what nothing asks for.
    let causes = causes(&Status::of(&shared.board, shared.limits), &name);
    let asked_for = decision.even_so || is_named(&causes, choice.name());
    // Not ended with the request: what has begun is finished.
    let work = async move {
        let Some(_still) = standstill.stand(STANDS).await else {
            anyhow::bail!("the stream does not stand still (does it wait for a sink?); nothing was done, try again");
        };
        if !asked_for {
            let outlook = look(&config, &pipeline, choice).await?;
            if !outlook.applies {
                let why = outlook.insist.unwrap_or_else(|| outlook.would.join("; "));
                anyhow::bail!("{}: {why}; nothing was done", choice.name());
            }
        }
        carry_out(&config, &pipeline, choice).await
    };
    let done = shared.desk.finish(work).await.map_err(refused)?;
    tracing::info!(pipeline = name, choice = decision.choice, done = done.join("; "), "decided in the console");
    Ok(Done { pipeline: name, done })
}

/// Why a pipeline does not go on: where, what, and the command that the error names.
fn causes(status: &Status, pipeline: &str) -> Vec<(String, String)> {
    let partitions = status.partitions.iter().filter(|p| p.pipeline == pipeline);
    let stopped = partitions.filter_map(|p| match &p.phase {
        PartitionPhase::Stopped { what, command } => {
            Some((format!("Partition {} of {}", p.partition, p.topic), format!("{what}. To resolve it: {command}")))
        }
        _ => None,
    });
    let actors = status.actors.iter().filter(|a| a.kind == "pipeline" && a.name == pipeline);
    let gave_up = actors.filter(|a| a.phase == ActorPhase::GaveUp);
    stopped
        .chain(gave_up.map(|a| ("The whole pipeline".to_owned(), a.last_failure.clone().unwrap_or_default())))
        .collect()
}

/// Whether what has stopped names a choice.
fn is_named(causes: &[(String, String)], choice: &str) -> bool {
    causes.iter().any(|(_, why)| why.contains(&format!("boathouse bronze {choice} ")))
}

/// Where somebody must decide; empty where nothing has stopped.
pub fn notice(status: &Status, pipelines: &[String]) -> Markup {
    html! {
        @for name in pipelines {
            @if !causes(status, name).is_empty() {
                p.said {
                    "Something of " strong { (name) } " has stopped until somebody decides: "
                    a href={ "/stream/choices?pipeline=" (encoded(name)) } { "why, and what resolves it" } "."
                }
            }
        }
    }
}

#[derive(Deserialize)]
pub struct Asked {
    pipeline: String,
    #[serde(default)]
    to: String,
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let Asked { pipeline, to } = asked.into_inner();
    let which = Which { pipeline: known(&shared, &pipeline)?, to };
    moment(&which.to)?;
    let causes = causes(&Status::of(&shared.board, shared.limits), &pipeline);
    let first = html! {
        p.crumbs { a href="/stream" { "Stream" } " / choices" }
        h1 { "What resolves it" }
        p.lead { "Each choice with what it would do now. Nothing has been changed by looking." }
        section aria-labelledby="causes-title" {
            h2 #causes-title { "What has stopped" }
            @if causes.is_empty() {
                p { "Nothing of " (pipeline) " has stopped. The choices below are for when it has." }
            } @else {
                dl.plain { @for (place, why) in &causes { dt { (place) } dd { p.error { (why) } } } }
            }
        }
    };
    let viewer = view.clone();
    let rest = async move {
        let looked = choices(&shared, &which).await?;
        let named = |choice: &str| is_named(&causes, choice);
        Ok(html! {
            section aria-labelledby="choices-title" {
                h2 #choices-title { "Choices" }
                @for looked in &looked { (card(&viewer, &which.pipeline, &which.to, looked, &named)) }
            }
            p.note {
                "The stream of this pipeline stands still for the moment, everything in hand is committed first, and it begins anew. "
                "The other instances of the group begin anew by themselves. On the machine: " code { "boathouse bronze --dry-run …" } "."
            }
        })
    };
    // The looks ask Kafka and the table; why it has stopped is known at once.
    Ok(view.page_in_two("What resolves it", None, first, rest))
}

fn card(view: &View, pipeline: &str, to: &str, looked: &Looked, named: &dyn Fn(&str) -> bool) -> Markup {
    let (choice, meaning) = match looked {
        Looked::Known(outlook) => (outlook.choice, outlook.meaning),
        Looked::Unknown { choice, meaning, .. } => (*choice, *meaning),
    };
    let id = format!("choice-{choice}");
    html! {
        section.card aria-labelledby=(id) {
            div.heading {
                h3 id=(id) { (choice) }
                @match looked {
                    _ if named(choice) => { (badge(State::Watch, "the error names it")) }
                    Looked::Known(outlook) if outlook.applies => { (badge(State::Watch, "would do something")) }
                    Looked::Known(_) => { (badge(State::Idle, "nothing to do")) }
                    Looked::Unknown { .. } => { (badge(State::Idle, "cannot be said")) }
                }
            }
            p { (meaning) }
            @match looked {
                Looked::Known(outlook) => {
                    ul { @for line in &outlook.would { li { (line) } } }
                    @if let Some(insist) = &outlook.insist { p.said { (insist) } }
                }
                Looked::Unknown { error, .. } => { p.note { (error) } }
            }
            @if view.operator() {
                @if choice == "lower-mark" {
                    form.filter method="get" {
                        input type="hidden" name="pipeline" value=(pipeline);
                        label for="mark-to" { "Set it back to" }
                        input #mark-to name="to" value=(to) placeholder="2026-02-06T14:30:00Z" autocomplete="off" spellcheck="false";
                        button type="submit" { "Look" }
                    }
                }
                @if let Looked::Known(outlook) = looked {
                    @if (outlook.applies || outlook.insist.is_some() || named(choice)) && (choice != "lower-mark" || !to.is_empty()) {
                        (view.form("/stream/choices", html! {
                            input type="hidden" name="pipeline" value=(pipeline);
                            input type="hidden" name="choice" value=(choice);
                            input type="hidden" name="to" value=(to);
                            div.actions {
                                @if outlook.insist.is_some() {
                                    label { input type="checkbox" name="even_so" value="true"; " Even so" }
                                }
                                button.danger type="submit" { "Do it" span.sr { ": " (choice) } }
                            }
                        }))
                    }
                }
            }
        }
    }
}

/// A decision as the page sends it: a box that is not ticked sends nothing.
#[derive(Deserialize)]
pub struct Form {
    pipeline: String,
    choice: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    even_so: bool,
}

pub async fn decide_form(
    view: View,
    form: web::Form<Form>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let Form { pipeline, choice, to, even_so } = form.into_inner();
    let done = decide(&shared, Decision { pipeline, choice, to, partition: None, even_so }).await?;
    if done.done.is_empty() {
        return Ok(go("/stream"));
    }
    let body = html! {
        p.crumbs { a href="/stream" { "Stream" } " / decided" }
        h1 { "Decided" }
        div.said.good role="status" { @for line in &done.done { p { (done.pipeline) ": " (line) } } }
        p { "The stream begins anew: " a href="/stream" { "look at it" } "." }
    };
    Ok(view.page("Decided", None, body))
}
