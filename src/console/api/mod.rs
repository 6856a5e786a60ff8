//! `/api/v1`: everything that the console does, for programs.

mod admin;
mod batch;
mod data;
mod document;
mod letters;
mod reconcile;
mod status;
mod stream;

use actix_web::web;

use super::pages;

pub use document::{CALLS, Call};

/// All calls.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/v1/status", web::get().to(status::status))
        .route("/api/v1/hour", web::get().to(status::hour))
        .route("/api/v1/rates", web::get().to(status::rates))
        .route("/api/v1/lag", web::get().to(status::lag))
        .route("/api/v1/session", web::get().to(status::session))
        .route("/api/v1/openapi.json", web::get().to(document::serve))
        .route("/api/v1/stream/choices", web::get().to(stream::choices))
        .route("/api/v1/stream/choices", web::post().to(stream::decide))
        .route("/api/v1/stream/tap", web::get().to(stream::newest))
        .route("/api/v1/stream/pauses", web::get().to(stream::pauses))
        .route("/api/v1/stream/pause", web::post().to(stream::pause))
        .route("/api/v1/stream/resume", web::post().to(stream::resume))
        .route("/api/v1/tables", web::get().to(data::tables))
        .route("/api/v1/tables/{table}", web::get().to(data::table))
        .route("/api/v1/clickhouse/tables", web::get().to(data::all_served))
        .route("/api/v1/clickhouse/tables/{table}", web::get().to(data::served))
        .route("/api/v1/sql", web::post().to(data::sql))
        .route("/api/v1/sql/running", web::get().to(data::sql_running))
        .route("/api/v1/sql/cancel", web::post().to(data::sql_cancel))
        .route("/api/v1/sql/words", web::get().to(pages::sql::words))
        .route("/api/v1/quality", web::get().to(data::quality))
        .route("/api/v1/dead-letters", web::get().to(letters::dead_letters))
        .route("/api/v1/dead-letters/check", web::post().to(letters::check))
        .route("/api/v1/dead-letters/redrive", web::post().to(letters::redrive))
        .route("/api/v1/dead-letters/check-all", web::post().to(letters::check_all))
        .route("/api/v1/dead-letters/redrive-all", web::post().to(letters::redrive_all))
        .route("/api/v1/records/{source:.+}", web::get().to(letters::record))
        .route("/api/v1/reconcile", web::get().to(reconcile::standing))
        .route("/api/v1/reconcile", web::post().to(reconcile::start))
        .route("/api/v1/reconcile/stop", web::post().to(reconcile::stop))
        .route("/api/v1/trace/{event:.+}", web::get().to(data::trace))
        .route("/api/v1/users", web::get().to(admin::users))
        .route("/api/v1/users", web::post().to(admin::put_user))
        .route("/api/v1/users/{name}", web::delete().to(admin::delete_user))
        .route("/api/v1/tokens", web::post().to(admin::add_token))
        .route("/api/v1/tokens/{name}", web::delete().to(admin::delete_token))
        .route("/api/v1/audit", web::get().to(admin::audit))
        .route("/api/v1/configuration", web::get().to(admin::configuration))
        .route("/api/v1/runs", web::get().to(batch::runs))
        .route("/api/v1/runs", web::post().to(batch::trigger))
        .route("/api/v1/backfills/plan", web::get().to(batch::backfill_plan))
        .route("/api/v1/backfills", web::post().to(batch::backfill))
        .route("/api/v1/runs/{id}", web::get().to(batch::run))
        .route("/api/v1/runs/{id}/log", web::get().to(batch::log))
        .route("/api/v1/runs/{id}/cancel", web::post().to(batch::cancel))
        .route("/api/v1/runs/{id}/retry", web::post().to(batch::retry))
        .route("/api/v1/schedules/{pipeline}/pause", web::post().to(batch::pause))
        .route("/api/v1/schedules/{pipeline}/resume", web::post().to(batch::resume));
}
