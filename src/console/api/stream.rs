//! The stream: pausing and resuming it, the newest events, and what resolves a stop.

use actix_web::{HttpResponse, web};
use chrono::Utc;

use crate::console::pages::choices::{self, Decision, Which};
use crate::console::pages::pauses::{self, Pause, Resume};
use crate::console::pages::tap::Asked;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::tap;
use crate::console::view::View;

pub async fn choices(which: web::Query<Which>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(choices::choices(&shared, &which).await?))
}

pub async fn decide(asked: web::Json<Decision>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(choices::decide(&shared, asked.into_inner()).await?))
}

pub async fn newest(asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let picture = tap::newest(&shared, asked.read(&shared)?).await?;
    Ok(HttpResponse::Ok().json(picture.newest.iter().map(|seen| seen.json()).collect::<Vec<_>>()))
}

pub async fn pauses(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.holds.all(Utc::now()))
}

pub async fn pause(view: View, asked: web::Json<Pause>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(pauses::pause(&shared, &view.caller.name, asked.into_inner()).await?))
}

pub async fn resume(asked: web::Json<Resume>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(pauses::resume(&shared, asked.into_inner()).await?))
}
