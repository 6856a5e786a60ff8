//! Dead letters: which there are, what a corrected one would be, and sending it.

use actix_web::{HttpResponse, web};

use crate::console::pages::bulk::{self, Many};
use crate::console::pages::letter::{self, Correction};
use crate::console::pages::letters::{Asked, letters};
use crate::console::problem::Problem;
use crate::console::shared::Shared;

pub async fn dead_letters(asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let found = letters(&shared, &asked).await?;
    Ok(HttpResponse::Ok().json(found.iter().map(|letter| letter.json()).collect::<Vec<_>>()))
}

pub async fn record(source: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let found = letter::find(&shared, &source).await.map_err(|error| Problem::missing(format!("{error:#}")))?;
    Ok(HttpResponse::Ok().json(found))
}

pub async fn check(correction: web::Json<Correction>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(letter::check(&shared, correction.into_inner()).await?.json()))
}

pub async fn check_all(many: web::Json<Many>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(bulk::check(&shared, many.into_inner()).await?.json()))
}

pub async fn redrive_all(many: web::Json<Many>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(bulk::redrive(&shared, many.into_inner()).await?))
}

pub async fn redrive(correction: web::Json<Correction>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(letter::redrive(&shared, correction.into_inner()).await?))
}
