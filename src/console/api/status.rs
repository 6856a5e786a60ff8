//! The state of everything, and who asks.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::console::access::Role;
use crate::console::meter::Point;
use crate::console::notices::Notice;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::View;
use crate::telemetry::Status;

/// The board, and what is wrong on it.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    status: Status,
    notices: Vec<Notice>,
}

pub async fn status(shared: web::Data<Shared>) -> HttpResponse {
    let look = shared.look();
    HttpResponse::Ok().json(Answer { status: look.status, notices: look.notices })
}

/// Which pipeline.
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Of {
    /// The pipeline; without it the first.
    pipeline: Option<String>,
}

pub async fn hour(of: web::Query<Of>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let names = shared.pipeline_names();
    let name = of.pipeline.clone().or_else(|| names.first().cloned()).unwrap_or_default();
    let points: Vec<Point> = shared.meter(|meter| meter.hour(&name).cloned().collect());
    Ok(HttpResponse::Ok().json(points))
}

/// Who asks.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Session {
    name: String,
    role: Role,
    /// To be sent as the header `x-csrf-token` with everything that changes something; empty for tokens.
    csrf: String,
}

pub async fn session(view: View) -> HttpResponse {
    let caller = &view.caller;
    HttpResponse::Ok().json(Session { name: caller.name.clone(), role: caller.role, csrf: caller.csrf().to_owned() })
}
