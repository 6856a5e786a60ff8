//! Signing in and out, one's own password, the theme.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::Utc;
use maud::html;
use serde::Deserialize;

use super::Said;
use crate::console::access::{SignIn, Via};
use crate::console::audit::Entry;
use crate::console::gate::SESSION;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{THEME, Theme, View, bare, cookie, go, own_path};
use crate::console::words;

/// A cookie that scripts cannot read and other sites cannot send.
fn set_cookie(shared: &Shared, name: &str, value: &str, keep: Option<Duration>) -> (header::HeaderName, String) {
    let secure = if shared.secure() { "; Secure" } else { "" };
    let keep = keep.map(|keep| format!("; Max-Age={}", keep.as_secs())).unwrap_or_default();
    (header::SET_COOKIE, format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{keep}{secure}"))
}

#[derive(Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
}

/// The sign-in page.
pub async fn login(request: HttpRequest, next: web::Query<Next>, shared: web::Data<Shared>) -> HttpResponse {
    if cookie(request.headers(), SESSION).is_some_and(|id| shared.access.by_session(&id).is_some()) {
        return go(own_path(&next.next));
    }
    sign_in_page(&request, &shared, StatusCode::OK, None, &next.next, "")
}

fn sign_in_page(
    request: &HttpRequest,
    shared: &Shared,
    status: StatusCode,
    said: Option<&str>,
    next: &str,
    name: &str,
) -> HttpResponse {
    let first = shared.access.users(|users| users.first_password_file());
    let body = html! {
        h1 { "Sign in" }
        @if let Some(said) = said { p.said role="alert" { (said) } }
        form.stack method="post" action="/login" {
            input type="hidden" name="next" value=(own_path(next));
            label for="name" { "Name" }
            input #name name="name" value=(name) autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus;
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="current-password" required;
            button.primary type="submit" { "Sign in" }
        }
        @if first.exists() {
            p.hint {
                "First time? The name is " code { "admin" } ", its password waits in "
                code { "console/first-password" } " in the daemon's data folder, and goes once you are in."
            }
        }
    };
    HttpResponse::build(status)
        .content_type(ContentType::html())
        .body(bare(Theme::of(request.headers()), "Sign in", body).into_string())
}

#[derive(Deserialize)]
pub struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    next: String,
}

pub async fn sign_in(request: HttpRequest, form: web::Form<Credentials>, shared: web::Data<Shared>) -> HttpResponse {
    let from = request.peer_addr().map(|from| from.ip());
    let outcome = shared.access.sign_in(&form.name, &form.password, from).await;
    let note = |status: StatusCode| {
        shared.audit.add(&Entry {
            at: Utc::now(),
            who: form.name.chars().take(64).collect(),
            from: from.map(|ip| ip.to_string()).unwrap_or_default(),
            action: "sign in".into(),
            detail: String::new(),
            status: status.as_u16(),
        });
    };
    match outcome {
        SignIn::Welcome(id) => {
            // Whatever session the browser came with ends here.
            if let Some(old) = cookie(request.headers(), SESSION) {
                shared.access.sessions.end(&old);
            }
            note(StatusCode::OK);
            let mut response = go(own_path(&form.next));
            let (name, value) = set_cookie(&shared, SESSION, &id, None);
            if let Ok(value) = value.parse() {
                response.headers_mut().append(name, value);
            }
            response
        }
        SignIn::Wrong => {
            note(StatusCode::UNAUTHORIZED);
            let said = "This name and password do not belong together.";
            sign_in_page(&request, &shared, StatusCode::UNAUTHORIZED, Some(said), &form.next, &form.name)
        }
        SignIn::Wait(wait) => {
            note(StatusCode::TOO_MANY_REQUESTS);
            let wait = wait.as_secs() + 1;
            let said =
                format!("Too many failed tries. The next one counts in {}.", words::span(Duration::from_secs(wait)));
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut response = sign_in_page(&request, &shared, status, Some(&said), &form.next, &form.name);
            response.headers_mut().insert(header::RETRY_AFTER, wait.into());
            response
        }
    }
}

pub async fn sign_out(view: View, shared: web::Data<Shared>) -> HttpResponse {
    if let Via::Session { id, .. } = &view.caller.via {
        shared.access.sessions.end(id);
    }
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/login"))
        .insert_header(set_cookie(&shared, SESSION, "", Some(Duration::ZERO)))
        .finish()
}

#[derive(Deserialize)]
pub struct ThemeForm {
    theme: String,
    #[serde(default)]
    back: String,
}

pub async fn theme(form: web::Form<ThemeForm>, shared: web::Data<Shared>) -> HttpResponse {
    let theme = Theme::named(&form.theme);
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, own_path(&form.back)))
        .insert_header(set_cookie(&shared, THEME, theme.as_str(), Some(Duration::from_secs(365 * 86_400))))
        .finish()
}

const SAID: [(&str, &str); 1] = [("changed", "Your password is changed; your other sessions have ended.")];

/// One's own account.
pub async fn page(view: View, said: web::Query<Said>) -> HttpResponse {
    let body = html! {
        h1 { "Your account" }
        @if let Some(said) = said.among(&SAID) { p.said.good role="status" { (said) } }
        dl.plain {
            dt { "Name" } dd { (view.caller.name) }
            dt { "Role" } dd { (view.caller.role) }
        }
        @if matches!(view.caller.via, Via::Session { .. }) {
            section.card {
                h2 { "Change the password" }
                (view.form("/password", html! {
                    div.stack {
                        label for="password" { "Present password" }
                        input #password name="password" type="password" autocomplete="current-password" required;
                        label for="new_password" { "New password" }
                        input #new_password name="new_password" type="password" autocomplete="new-password" minlength="12" required aria-describedby="rule";
                        p.hint #rule { "At least 12 characters; several unrelated words are easy to remember and hard to guess." }
                        button.primary type="submit" { "Change it" }
                    }
                }))
            }
        }
        (view.form("/logout", html! { button type="submit" { "Sign out" } }))
    };
    view.page("Account", None, body)
}

#[derive(Deserialize)]
pub struct NewPassword {
    password: String,
    new_password: String,
}

pub async fn password(
    view: View,
    form: web::Form<NewPassword>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let Via::Session { id, .. } = &view.caller.via else {
        return Err(Problem::refused("a token has no password"));
    };
    let name = view.caller.name.clone();
    if !shared.access.fits(&name, &form.password).await {
        return Err(Problem::refused("the present password is not this one"));
    }
    let (access, role, new) = (shared.access.clone(), view.caller.role, form.into_inner().new_password);
    let user = name.clone();
    let changed = web::block(move || access.change(|users| users.put(&user, role, Some(&new)))).await;
    match changed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Problem::refused(error.to_string())),
        Err(_) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the console is busy; try again")),
    }
    shared.access.sessions.end_all(&name, Some(id));
    Ok(go("/account?said=changed"))
}
