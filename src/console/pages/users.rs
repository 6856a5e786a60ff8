//! Users, their roles, and API tokens: admins alone.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::Said;
use crate::console::access::{Role, Users};
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{View, empty, go, table, th};
use crate::console::words;

const SAID: [(&str, &str); 2] = [("put", "The user is kept."), ("removed", "Removed; what they had open has ended.")];

pub async fn page(view: View, said: web::Query<Said>, shared: web::Data<Shared>) -> HttpResponse {
    show(&view, &shared, said.among(&SAID), None)
}

fn show(view: &View, shared: &Shared, said: Option<&str>, token: Option<(&str, &str)>) -> HttpResponse {
    let body = html! {
        h1 { "Users" }
        p.lead { "A viewer looks and asks queries, an operator acts, an admin also sees the configuration and the audit log and manages users." }
        @if let Some(said) = said { p.said.good role="status" { (said) } }
        @if let Some((name, token)) = token {
            div.said.good role="status" {
                p { "The token " strong { (name) } ", shown this once. Send it as " code { "Authorization: Bearer …" } ":" }
                p { code { (token) } }
            }
        }
        (shared.access.users(|users| lists(view, users)))
        div.two {
            section.card {
                h2 { "Add or change a user" }
                (view.form("/users/put", html! {
                    div.stack {
                        label for="name" { "Name" }
                        input #name name="name" required maxlength="64" autocapitalize="none" spellcheck="false" autocomplete="off";
                        (role_field("role"))
                        label for="password" { "Password" }
                        input #password name="password" type="password" autocomplete="new-password" minlength="12" aria-describedby="password-rule";
                        p.hint #password-rule { "At least 12 characters. Left empty, a user who is there keeps theirs." }
                        button.primary type="submit" { "Keep" }
                    }
                }))
            }
            section.card {
                h2 { "Make an API token" }
                (view.form("/users/tokens", html! {
                    div.stack {
                        label for="token-name" { "Name, such as the program that uses it" }
                        input #token-name name="name" required maxlength="64" autocapitalize="none" spellcheck="false" autocomplete="off";
                        (role_field("token-role"))
                        button.primary type="submit" { "Make it" }
                    }
                }))
            }
        }
    };
    view.page("Users", None, body)
}

fn role_field(id: &str) -> Markup {
    html! {
        label for=(id) { "Role" }
        select #(id) name="role" { @for role in Role::ALL { option value=(role.as_str()) { (role) } } }
    }
}

fn lists(view: &View, users: &Users) -> Markup {
    let remove = |action: &str, name: &str| {
        view.form(
            action,
            html! {
                input type="hidden" name="name" value=(name);
                button.danger type="submit" { "Remove" span.sr { " " (name) } }
            },
        )
    };
    let columns = |who: &str| [th(who), th("Role"), th("Since"), html! { th scope="col" { span.sr { "Remove" } } }];
    html! {
        (table("Users", &columns("User"), html! {
            @for user in &users.users {
                tr {
                    th scope="row" { (user.name) } td { (user.role) } td { (words::moment(user.since)) }
                    td.n { @if user.name != view.caller.name { (remove("/users/remove", &user.name)) } @else { span.note { "you" } } }
                }
            }
        }))
        h2 { "API tokens" }
        @if users.tokens.is_empty() {
            (empty("No token", html! { "Programs that call " code { "/api/v1" } " sign in with one. Make one below." }))
        } @else {
            (table("API tokens", &columns("Token"), html! {
                @for token in &users.tokens {
                    tr {
                        th scope="row" { (token.name) } td { (token.role) } td { (words::moment(token.since)) }
                        td.n { (remove("/users/tokens/remove", &token.name)) }
                    }
                }
            }))
        }
    }
}

/// A user as forms and programs send one.
#[derive(Deserialize, schemars::JsonSchema)]
pub struct NewUser {
    /// Letters, digits and `. _ - @`.
    pub name: String,
    pub role: Role,
    /// At least 12 characters; may be left out for a user who is there.
    #[serde(default)]
    pub password: String,
}

/// Changes the users, where a hash may take its time.
pub async fn change<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&mut Users) -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let access = shared.access.clone();
    match web::block(move || access.change(work)).await {
        Ok(done) => done.map_err(|error| Problem::refused(format!("{error:#}"))),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the console is busy; try again")),
    }
}

/// Adds or changes a user. Whose password or role changes signs in anew.
pub async fn keep(shared: &Shared, new: NewUser) -> Result<(), Problem> {
    let name = new.name.clone();
    let password = Some(new.password).filter(|password| !password.is_empty());
    let anew = password.is_some();
    change(shared, move |users| users.put(&new.name, new.role, password.as_deref())).await?;
    if anew {
        shared.access.sessions.end_all(&name, None);
    }
    Ok(())
}

/// Removes a user; what they had open ends.
pub async fn remove_user(shared: &Shared, name: String) -> Result<(), Problem> {
    let gone = name.clone();
    change(shared, move |users| users.remove(&name)).await?;
    shared.access.sessions.end_all(&gone, None);
    Ok(())
}

pub async fn put(form: web::Form<NewUser>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    keep(&shared, form.into_inner()).await?;
    Ok(go("/users?said=put"))
}

#[derive(Deserialize)]
pub struct Which {
    name: String,
}

pub async fn remove(form: web::Form<Which>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    remove_user(&shared, form.into_inner().name).await?;
    Ok(go("/users?said=removed"))
}

/// A token to make.
#[derive(Deserialize, schemars::JsonSchema)]
pub struct NewToken {
    /// What uses it.
    pub name: String,
    pub role: Role,
}

pub async fn token(view: View, form: web::Form<NewToken>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let NewToken { name, role } = form.into_inner();
    let asked = name.clone();
    let token = change(&shared, move |users| users.add_token(&asked, role)).await?;
    Ok(show(&view, &shared, None, Some((&name, &token))))
}

pub async fn remove_token(form: web::Form<Which>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let name = form.into_inner().name;
    change(&shared, move |users| users.remove_token(&name)).await?;
    Ok(go("/users?said=removed"))
}
