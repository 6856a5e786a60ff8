//! The API as a page: the same list of calls that the OpenAPI document is made from.

use actix_web::HttpResponse;
use maud::{Markup, html};
use serde_json::Value;

use crate::console::api::{CALLS, Call};
use crate::console::view::View;

pub async fn page(view: View) -> HttpResponse {
    let mut groups: Vec<&str> = Vec::new();
    for call in CALLS {
        if !groups.contains(&call.group) {
            groups.push(call.group);
        }
    }
    let body = html! {
        h1 { "API" }
        p.lead { "Everything that the console does, for programs. The whole description is "
            a href="/api/v1/openapi.json" { "OpenAPI 3.1" } "; any generator of clients takes it." }
        section.card {
            h2 { "Signing in" }
            p { "An admin makes a token on the page Users. A program sends it with each call:" }
            pre tabindex="0" { code { "curl -H 'Authorization: Bearer bh_…' 'http://127.0.0.1:8082/api/v1/status'" } }
        }
        @for group in groups {
            section aria-label=(group) {
                h2 { (group) }
                @for call in CALLS.iter().filter(|call| call.group == group) { (one(call)) }
            }
        }
    };
    view.page("API", None, body)
}

fn one(call: &Call) -> Markup {
    html! {
        details.call {
            summary { span class={ "verb " (call.method) } { (call.method.to_uppercase()) } " " code { (call.path) } " " span.note { (call.summary) } }
            p { "Needs the role " strong { (call.role()) } ". Answers " (call.status) "." }
            @if let Some(asked) = call.asks() { h3 { "In the address" } (fields(&asked)) }
            @if let Some(body) = call.takes() { h3 { "In the body, as JSON" } (fields(&body)) }
            @if call.method == "get" && !call.path.contains('{') { p { a href=(call.path) { "Try it" span.sr { " " (call.path) } } } }
        }
    }
}

fn fields(schema: &Value) -> Markup {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    html! {
        dl.plain {
            @for (name, of) in schema["properties"].as_object().into_iter().flatten() {
                dt { code { (name) } @if required(name) { span.note { " required" } } }
                dd { (kind(of)) " " span.note { (of["description"].as_str().unwrap_or_default()) } }
            }
        }
    }
}

fn kind(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().filter_map(|one| one["const"].as_str()).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect::<Vec<_>>().join(" or ")
        }
        _ => String::new(),
    }
}
