//! Users, tokens, the audit log, the configuration: admins alone.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::console::access::Role;
use crate::console::pages::audit::{Asked, entries};
use crate::console::pages::configuration::values;
use crate::console::pages::users::{NewToken, NewUser, change, keep, remove_user};
use crate::console::problem::Problem;
use crate::console::shared::Shared;

/// Somebody who may sign in, or a program that may call.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Known {
    name: String,
    role: Role,
    /// When it was made, RFC 3339.
    since: String,
}

/// Who may come in.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Everybody {
    users: Vec<Known>,
    tokens: Vec<Known>,
}

pub async fn users(shared: web::Data<Shared>) -> HttpResponse {
    let everybody = shared.access.users(|users| Everybody {
        users: users
            .users
            .iter()
            .map(|u| Known { name: u.name.clone(), role: u.role, since: u.since.to_rfc3339() })
            .collect(),
        tokens: users
            .tokens
            .iter()
            .map(|t| Known { name: t.name.clone(), role: t.role, since: t.since.to_rfc3339() })
            .collect(),
    });
    HttpResponse::Ok().json(everybody)
}

pub async fn put_user(new: web::Json<NewUser>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    keep(&shared, new.into_inner()).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub async fn delete_user(name: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    remove_user(&shared, name.into_inner()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A token, the only time that it is shown.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Made {
    token: String,
}

pub async fn add_token(new: web::Json<NewToken>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let NewToken { name, role } = new.into_inner();
    let token = change(&shared, move |users| users.add_token(&name, role)).await?;
    Ok(HttpResponse::Created().json(Made { token }))
}

pub async fn delete_token(name: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let name = name.into_inner();
    change(&shared, move |users| users.remove_token(&name)).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub async fn audit(asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(entries(&shared, &asked).await?))
}

pub async fn configuration(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(values(&shared.settings))
}
