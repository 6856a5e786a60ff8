//! The pages, one file each. Each renders what it is given; nothing here decides anything about the data.

pub mod account;
pub mod actors;
pub mod audit;
pub mod backfill;
pub mod batch;
pub mod bulk;
pub mod choices;
pub mod configuration;
pub mod data;
pub mod docs;
pub mod letter;
pub mod letters;
pub mod overview;
pub mod pauses;
pub mod quality;
pub mod reconcile;
pub mod run;
mod search;
pub mod sql;
pub mod stream;
pub mod tap;
pub mod ticked;
pub mod trace;
pub mod users;

use actix_web::web;
use serde::Deserialize;

use super::live::live;

/// What was just done, as the address of the page that shows it says.
#[derive(Deserialize)]
pub struct Said {
    #[serde(default)]
    said: String,
}

impl Said {
    /// Its sentence among those that a page knows.
    pub fn among<'a>(&self, known: &[(&str, &'a str)]) -> Option<&'a str> {
        known.iter().find(|(name, _)| *name == self.said).map(|(_, sentence)| *sentence)
    }
}

/// The name of a run, if a text can be one.
pub fn run_id(text: &str) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!text.is_empty() && text.len() <= 40 && text.chars().all(fine)).then_some(text)
}

/// All pages and their forms.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(overview::page))
        .route("/stream", web::get().to(stream::page))
        .route("/stream/tap", web::get().to(tap::page))
        .route("/live/tap", web::get().to(tap::live))
        .route("/stream/choices", web::get().to(choices::page))
        .route("/stream/choices", web::post().to(choices::decide_form))
        .route("/stream/pause", web::post().to(pauses::pause_form))
        .route("/stream/resume", web::post().to(pauses::resume_form_sent))
        .route("/batch", web::get().to(batch::page))
        .route("/batch/run", web::post().to(batch::trigger))
        .route("/batch/pause", web::post().to(batch::pause))
        .route("/batch/resume", web::post().to(batch::resume))
        .route("/batch/cancel", web::post().to(ticked::cancel))
        .route("/batch/retry", web::post().to(ticked::retry))
        .route("/batch/backfill", web::get().to(backfill::page))
        .route("/batch/backfill", web::post().to(backfill::start))
        .route("/batch/runs/{id}", web::get().to(run::page))
        .route("/batch/runs/{id}/cancel", web::post().to(run::cancel))
        .route("/batch/runs/{id}/retry", web::post().to(run::retry))
        .route("/data", web::get().to(data::page))
        .route("/data/{table}", web::get().to(data::one))
        .route("/data/clickhouse/{table}", web::get().to(data::one_of_clickhouse))
        .route("/sql", web::get().to(sql::page))
        .route("/sql", web::post().to(sql::run))
        .route("/sql/cancel", web::post().to(sql::cancel))
        .route("/sql/running", web::get().to(sql::running))
        .route("/sql/words", web::get().to(sql::words))
        .route("/quality", web::get().to(quality::page))
        .route("/reconcile", web::get().to(reconcile::page))
        .route("/reconcile/run", web::post().to(reconcile::run))
        .route("/reconcile/stop", web::post().to(reconcile::stop))
        .route("/dead-letters", web::get().to(letters::page))
        .route("/dead-letters/check", web::post().to(letter::check_form))
        .route("/dead-letters/redrive", web::post().to(letter::redrive_form))
        .route("/dead-letters/all", web::get().to(bulk::page))
        .route("/dead-letters/check-all", web::post().to(bulk::check_form))
        .route("/dead-letters/redrive-all", web::post().to(bulk::redrive_form))
        .route("/records/{source:.+}", web::get().to(letter::page))
        .route("/trace/{asked:.+}", web::get().to(trace::page))
        .route("/search", web::get().to(search::page))
        .route("/api", web::get().to(docs::page))
        .route("/users", web::get().to(users::page))
        .route("/users/put", web::post().to(users::put))
        .route("/users/remove", web::post().to(users::remove))
        .route("/users/tokens", web::post().to(users::token))
        .route("/users/tokens/remove", web::post().to(users::remove_token))
        .route("/audit", web::get().to(audit::page))
        .route("/configuration", web::get().to(configuration::page))
        .route("/actors", web::get().to(actors::page))
        .route("/account", web::get().to(account::page))
        .route("/login", web::get().to(account::login))
        .route("/login", web::post().to(account::sign_in))
        .route("/logout", web::post().to(account::sign_out))
        .route("/theme", web::post().to(account::theme))
        .route("/password", web::post().to(account::password))
        .route("/live/{page:.*}", web::get().to(live));
}
