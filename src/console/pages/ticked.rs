//! What is done to several runs at once: those that are ticked in the list, and what became of each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::batch::{cancel_one, retry_one};
use super::run_id;
use crate::console::access::secret;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{SHOWN, State, View, again, badge, go, table, th};
use crate::console::words;

/// The field of a run's tick box.
const RUN: &str = "run";
/// Runs of one form at most: more than the page shows, and no more than the audit log has room to name.
const RUNS_MAX: usize = 64;
/// Characters of a run's name that are kept: more than any has.
const SHOWN_MAX: usize = 60;
/// Outcomes that are kept for the pages that show them.
const OUTCOMES_MAX: usize = 64;

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Retry,
    Cancel,
}

/// What became of the runs of one form, each done or refused.
#[derive(Debug, Clone)]
pub struct Outcome {
    act: Act,
    runs: Vec<(String, Result<(), String>)>,
}

/// The newest outcomes. Each has a name, which is in the address of the page that shows it, so that a reload shows it again
/// and does nothing again. Only who did it sees it. Clones share them.
#[derive(Clone, Default)]
pub struct Outcomes(Arc<Mutex<VecDeque<(String, String, Outcome)>>>);

impl Outcomes {
    /// Keeps one; its name.
    fn keep(&self, by: &str, outcome: Outcome) -> String {
        let name = secret::new_token();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((name.clone(), by.to_owned(), outcome));
        if kept.len() > OUTCOMES_MAX {
            kept.pop_front();
        }
        name
    }

    fn find(&self, by: &str, name: &str) -> Option<Outcome> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(its, whose, _)| its == name && whose == by).map(|(.., outcome)| outcome.clone())
    }
}

/// The outcome that an address names.
#[derive(Deserialize)]
pub struct Did {
    #[serde(default)]
    did: String,
}

impl Did {
    /// What became of each run; nothing where the address names no outcome of this user's.
    pub fn show(&self, view: &View, shared: &Shared) -> Markup {
        shared.outcomes.find(&view.caller.name, &self.did).map(|outcome| outcome.show()).unwrap_or_default()
    }
}

impl Outcome {
    fn show(&self) -> Markup {
        let done = self.runs.iter().filter(|(_, result)| result.is_ok()).count();
        let refused = self.runs.len() - done;
        let runs = |n: usize| words::plural(n as i64, "run", "runs");
        let (word, note) = match self.act {
            Act::Retry => ("retried", "it goes on at the task that failed"),
            Act::Cancel => ("cancelled", "it stops at its next step, at once where it has not begun"),
        };
        if self.runs.is_empty() {
            return html! { p.said role="status" { "No run was ticked, so nothing was done: tick some in the list." } };
        }
        html! {
            section aria-labelledby="did-title" {
                h2 #did-title { "What became of the ticked runs" }
                p.said.good[refused == 0] role="status" { (runs(done)) " " (word) @if refused > 0 { ", " (runs(refused)) " refused" } "." }
                (table("What became of each run", &["Run", "Result", "Why"].map(th), html! {
                    @for (run, result) in &self.runs {
                        tr {
                            th scope="row" { @match run_id(run) {
                                Some(run) => { a href={ "/batch/runs/" (run) } { (run) } }
                                None => { (run) }
                            } }
                            @match result {
                                Ok(()) => { td { (badge(State::Good, word)) } td.wrap { (note) } }
                                Err(why) => { td { (badge(State::Watch, "refused")) } td.wrap { (why) } }
                            }
                        }
                    }
                }))
            }
        }
    }
}

/// The list with its tick boxes, as a form.
pub fn form(view: &View, runs: Markup) -> Markup {
    view.form(
        "/batch/retry",
        html! {
            (view.shown())
            fieldset.ticks data-ticks {
                legend.sr { "Runs to retry or to cancel" }
                (runs)
                div.actions {
                    // Of use with a script alone, which shows it.
                    label.ticks-all hidden { input type="checkbox" autocomplete="off"; " All that are shown" }
                    button type="submit" { "Retry the ticked runs" }
                    button type="submit" formaction="/batch/cancel" { "Cancel the ticked runs" }
                    span.note.ticked role="status" {}
                }
                p.note { "Retry goes on at the task that failed. Cancel stops at the next step." }
            }
        },
    )
}

/// A run's tick box.
pub fn tick(run: &str) -> Markup {
    html! { label.pick { input type="checkbox" name=(RUN) value=(run) autocomplete="off"; span.sr { "Tick run " (run) } } }
}

type Form = web::Form<Vec<(String, String)>>;

pub async fn cancel(view: View, form: Form, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    each(&view, &form, &shared, Act::Cancel).await
}

pub async fn retry(view: View, form: Form, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    each(&view, &form, &shared, Act::Retry).await
}

/// Does it to each ticked run, and shows the same runs again, with what became of those.
async fn each(view: &View, form: &[(String, String)], shared: &Shared, act: Act) -> Result<HttpResponse, Problem> {
    let field = |wanted| form.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut ticked: Vec<&str> = Vec::new();
    for run in field(RUN) {
        if !ticked.contains(&run) {
            ticked.push(run);
        }
    }
    if ticked.len() > RUNS_MAX {
        return Err(Problem::refused(format!("that is more than {RUNS_MAX} runs at once; nothing was done")));
    }
    let mut runs = Vec::new();
    let mut away: Option<String> = None;
    for run in ticked {
        let result = match (&away, act) {
            (Some(why), _) => Err(why.clone()),
            (None, Act::Retry) => told(retry_one(shared, run).await, &mut away),
            (None, Act::Cancel) => told(cancel_one(shared, run).await, &mut away),
        };
        // What is no run's name may be as long as a form; it is shown, and kept for a while.
        runs.push((words::begin(run, SHOWN_MAX), result));
    }
    let did = shared.outcomes.keep(&view.caller.name, Outcome { act, runs });
    Ok(go(&again("/batch", field(SHOWN).next().unwrap_or_default(), &[("did", &did)])))
}

/// What a run's outcome says; a history that does not answer is not waited for once more with each run.
fn told(result: Result<(), Problem>, away: &mut Option<String>) -> Result<(), String> {
    result.map_err(|problem| {
        if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            *away = Some(format!("not tried, as the one before failed: {}", problem.text));
        }
        problem.text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_shown_to_who_did_it_and_only_the_newest_are_kept() {
        let outcomes = Outcomes::default();
        let runs = vec![("run-1".to_owned(), Ok(())), ("<b>".to_owned(), Err("there is no run `<b>`".to_owned()))];
        let first = outcomes.keep("ada", Outcome { act: Act::Retry, runs });
        let text = outcomes.find("ada", &first).unwrap().show().into_string();
        for part in ["1 run retried, 1 run refused.", "href=\"/batch/runs/run-1\"", "there is no run `&lt;b&gt;`"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("<b>"), "{text}");
        assert!(outcomes.find("bob", &first).is_none() && outcomes.find("ada", "").is_none());
        for _ in 0..OUTCOMES_MAX {
            outcomes.keep("ada", Outcome { act: Act::Cancel, runs: Vec::new() });
        }
        assert!(outcomes.find("ada", &first).is_none());
    }

    #[test]
    fn a_history_that_is_away_is_asked_once() {
        let mut away = None;
        assert_eq!(told(Err(Problem::refused("it is over")), &mut away), Err("it is over".into()));
        assert_eq!(away, None);
        let gone = Problem::from(anyhow::anyhow!("no history"));
        assert_eq!(told(Err(gone), &mut away), Err("no history".into()));
        assert!(away.unwrap().contains("not tried"), "the next ones say so");
    }
}
