//! Pausing and resuming the reading of partitions.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use chrono::Utc;
use maud::{Markup, html};
use serde::Deserialize;

use super::batch::known;
use crate::console::notices::because;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{View, again, go, table, th};
use crate::console::words;
use crate::holds::Hold;
use crate::telemetry::Status;

/// No pause by time is longer.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is to be paused.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    pub pipeline: String,
    /// The partition; all of the pipeline without it.
    pub partition: Option<i32>,
    /// How long, such as `15m`; until somebody resumes it without it.
    #[serde(rename = "for")]
    pub for_time: Option<String>,
    #[serde(default)]
    pub reason: String,
}

/// What is to go on.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    pub pipeline: String,
    /// The partition; all of the pipeline without it.
    pub partition: Option<i32>,
}

/// Does work that waits for the disk where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Result<T, Problem> {
    match web::block(work).await {
        Ok(done) => done.map_err(|error| Problem::refused(format!("{error:#}"))),
        Err(_) => Err(Problem::from(anyhow::anyhow!("the console is busy; try again"))),
    }
}

/// Pauses a partition, or a pipeline.
pub async fn pause(shared: &Shared, by: &str, pause: Pause) -> Result<Hold, Problem> {
    let pipeline = known(shared, &pause.pipeline)?;
    if pause.partition.is_some_and(|partition| partition < 0) {
        return Err(Problem::refused("a partition is a number from 0 on"));
    }
    let since = Utc::now();
    let time = pause.for_time.filter(|text| !text.trim().is_empty());
    let time = time.map(|text| {
        let time = humantime::parse_duration(text.trim()).ok().filter(|time| !time.is_zero() && *time <= LONGEST);
        time.ok_or_else(|| Problem::refused(format!("`{text}` is no time between 1s and 30d, such as 15m or 2h")))
    });
    let until = time.transpose()?.map(|time| since + time);
    let reason = pause.reason.trim().to_owned();
    let hold = Hold { pipeline, partition: pause.partition, by: by.to_owned(), since, until, reason };
    let (holds, kept) = (shared.holds.clone(), hold.clone());
    blocking(move || holds.hold(kept)).await?;
    Ok(hold)
}

/// Lets a partition, or a pipeline, go on; what was paused.
pub async fn resume(shared: &Shared, resume: Resume) -> Result<Vec<Hold>, Problem> {
    let pipeline = known(shared, &resume.pipeline)?;
    let holds = shared.holds.clone();
    blocking(move || holds.release(&pipeline, resume.partition)).await
}

/// What is paused, for everybody; and the forms, for operators.
pub fn section(view: &View, shared: &Shared) -> Markup {
    let holds = shared.holds.all(Utc::now());
    html! {
        @if !holds.is_empty() {
            section aria-labelledby="pauses-title" {
                h2 #pauses-title { "Paused on this instance" }
                @let [what, by, since, until, why] = ["What", "By", "Since", "Until", "Why"].map(th);
                @let columns = [what, by, since, until, why, html! { th scope="col" { span.sr { "Resume" } } }];
                (table("Pauses", &columns, html! {
                    @for hold in &holds {
                        tr {
                            th scope="row" { (hold.what()) } td { (hold.by) } td { (words::moment(hold.since)) }
                            td { @match hold.until { Some(until) => { (words::moment(until)) } None => { "resumed" } } }
                            td.wrap { (hold.reason) }
                            td.n { @if view.operator() { (resume_form(view, hold)) } }
                        }
                    }
                }))
            }
        }
        @if view.operator() {
            details.more {
                summary { "Pause reading" }
                (view.form("/stream/pause", html! {
                    (view.shown())
                    div.stack {
                        label for="pause-what" { "What" }
                        select #pause-what name="what" {
                            @for name in shared.pipeline_names() {
                                option value=(name) { "all of " (name) }
                                @for p in Status::of(&shared.board, shared.limits).partitions.iter().filter(|p| p.pipeline == name) {
                                    option value={ (name) "/" (p.partition) } { "partition " (p.partition) " of " (name) }
                                }
                            }
                        }
                        label for="pause-for" { "For how long" }
                        input #pause-for name="for" placeholder="15m" autocomplete="off" spellcheck="false" aria-describedby="pause-hint";
                        label for="pause-reason" { "Why" }
                        input #pause-reason name="reason" maxlength="500" autocomplete="off";
                        p.hint #pause-hint {
                            "Left empty, until somebody resumes it. What was read is committed; positions stay, and the lag grows meanwhile. "
                            "It survives a restart of the daemon, and is of this instance alone."
                        }
                        button.danger type="submit" { "Pause" }
                    }
                }))
            }
        }
    }
}

fn resume_form(view: &View, hold: &Hold) -> Markup {
    let what = match hold.partition {
        Some(partition) => format!("{}/{partition}", hold.pipeline),
        None => hold.pipeline.clone(),
    };
    view.form(
        "/stream/resume",
        html! {
            (view.shown())
            input type="hidden" name="what" value=(what);
            button type="submit" { "Resume" span.sr { " " (hold.what()) (because(&hold.reason)) } }
        },
    )
}

/// A form's choice: `PIPELINE` or `PIPELINE/PARTITION`.
#[derive(Deserialize)]
pub struct Form {
    what: String,
    #[serde(default, rename = "for")]
    for_time: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    view: String,
}

impl Form {
    fn chosen(&self) -> Result<(String, Option<i32>), Problem> {
        match self.what.split_once('/') {
            None => Ok((self.what.clone(), None)),
            Some((pipeline, partition)) => match partition.parse() {
                Ok(partition) => Ok((pipeline.to_owned(), Some(partition))),
                Err(_) => Err(Problem::refused(format!("`{partition}` is no partition"))),
            },
        }
    }
}

pub async fn pause_form(view: View, form: web::Form<Form>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let (pipeline, partition) = form.chosen()?;
    let Form { for_time, reason, view: shown, .. } = form.into_inner();
    pause(&shared, &view.caller.name, Pause { pipeline, partition, for_time: Some(for_time), reason }).await?;
    Ok(go(&again("/stream", &shown, &[("said", "paused")])))
}

pub async fn resume_form_sent(form: web::Form<Form>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let (pipeline, partition) = form.chosen()?;
    resume(&shared, Resume { pipeline, partition }).await?;
    Ok(go(&again("/stream", &form.view, &[("said", "resumed")])))
}
