//! The comparison of every layer with the one that it is made from.

use actix_web::{HttpResponse, web};

use crate::console::pages::reconcile::begin;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::View;

pub async fn standing(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.reconcile.standing())
}

pub async fn start(view: View, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    begin(&shared, &view.caller.name)?;
    Ok(HttpResponse::Accepted().json(shared.reconcile.standing()))
}

pub async fn stop(shared: web::Data<Shared>) -> HttpResponse {
    shared.reconcile.stop();
    HttpResponse::Accepted().json(shared.reconcile.standing())
}
