//! The API's description: one list of calls, from which the OpenAPI document and its page are made.

use actix_web::HttpResponse;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{admin, batch, data, status};
use crate::console::access::{Role, needed};
use crate::console::audit::Entry;
use crate::console::completion::Words;
use crate::console::meter::{Over, Point};
use crate::console::pages::batch::Asked as Runs;
use crate::console::pages::bulk::Many;
use crate::console::pages::choices::{Decision, Done, Looked, Which};
use crate::console::pages::configuration::Shown;
use crate::console::pages::letter::Correction;
use crate::console::pages::pauses::{Pause, Resume};
use crate::console::pages::tap::Asked as Tapped;
use crate::console::pages::users::{NewToken, NewUser};
use crate::console::pages::{backfill, letters, sql};
use crate::console::problem::Failure;
use crate::console::query::{self, Answer};
use crate::console::served::{Served, WholeServed};
use crate::holds::Hold;
use crate::letters::redrive::Sent;
use crate::letters::redrive::bulk::Redriven;
use crate::reconcile::job::Standing;

/// One call.
pub struct Call {
    pub method: &'static str,
    pub path: &'static str,
    pub group: &'static str,
    pub summary: &'static str,
    /// Parameters in the address, as a schema of an object.
    query: Option<fn() -> Value>,
    body: Option<fn() -> Value>,
    /// What it answers, with which status.
    answer: Option<fn() -> Value>,
    pub status: u16,
}

impl Call {
    const fn new(method: &'static str, path: &'static str, group: &'static str, summary: &'static str) -> Self {
        Self { method, path, group, summary, query: None, body: None, answer: None, status: 200 }
    }

    const fn query(self, query: fn() -> Value) -> Self {
        Self { query: Some(query), ..self }
    }

    const fn body(self, body: fn() -> Value) -> Self {
        Self { body: Some(body), ..self }
    }

    const fn answers(self, status: u16, answer: fn() -> Value) -> Self {
        Self { answer: Some(answer), status, ..self }
    }

    const fn answers_nothing(self) -> Self {
        Self { status: 204, ..self }
    }

    pub fn role(&self) -> Role {
        needed(self.method == "get", self.path)
    }

    /// Names of the parameters in the path.
    fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The schema of the body that it takes.
    pub fn takes(&self) -> Option<Value> {
        self.body.map(|schema| schema())
    }

    /// The schema of the parameters in the address.
    pub fn asks(&self) -> Option<Value> {
        self.query.map(|schema| schema())
    }
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
    }
    schema
}

fn list<T: JsonSchema>() -> Value {
    json!({ "type": "array", "items": of::<T>() })
}

/// Field names carry their units; what they are, the commands of the same name say with `--json`.
fn object() -> Value {
    json!({ "type": "object", "additionalProperties": true })
}

fn objects() -> Value {
    json!({ "type": "array", "items": object() })
}

/// Every call.
pub const CALLS: &[Call] = &[
    Call::new("get", "/api/v1/status", "State", "The board: partitions, sinks, actors, batches, and what is wrong now")
        .answers(200, object),
    Call::new("get", "/api/v1/hour", "State", "The last hour of a pipeline, a point every five seconds, oldest first")
        .query(of::<status::Of>)
        .answers(200, list::<Point>),
    Call::new("get", "/api/v1/rates", "State", "Rates, lag and memory of a pipeline over a range of time")
        .query(of::<status::OverTime>)
        .answers(200, of::<Over>),
    Call::new(
        "get",
        "/api/v1/lag",
        "State",
        "How far views and layers lay behind, over days, as ClickHouse has kept it",
    )
    .query(of::<status::OverTime>)
    .answers(200, list::<status::Lag>),
    Call::new("get", "/api/v1/session", "State", "Who asks, and the token that changes bring along")
        .answers(200, of::<status::Session>),
    Call::new("get", "/api/v1/stream/choices", "Stream", "What resolves a stop: each choice with what it would do now")
        .query(of::<Which>)
        .answers(200, list::<Looked>),
    Call::new("post", "/api/v1/stream/choices", "Stream", "Carry out one of the choices; the stream begins anew")
        .body(of::<Decision>)
        .answers(200, of::<Done>),
    Call::new("get", "/api/v1/stream/tap", "Stream", "The newest events that fit, decoded, newest first")
        .query(of::<Tapped>)
        .answers(200, objects),
    Call::new("get", "/api/v1/stream/pauses", "Stream", "What is paused on this instance").answers(200, list::<Hold>),
    Call::new("post", "/api/v1/stream/pause", "Stream", "Read nothing more of a partition or a pipeline")
        .body(of::<Pause>)
        .answers(200, of::<Hold>),
    Call::new("post", "/api/v1/stream/resume", "Stream", "Read on; answers what was paused")
        .body(of::<Resume>)
        .answers(200, list::<Hold>),
    Call::new("get", "/api/v1/runs", "Batch", "The newest runs that fit, newest first")
        .query(of::<Runs>)
        .answers(200, objects),
    Call::new("post", "/api/v1/runs", "Batch", "Start a run")
        .body(of::<batch::NewRun>)
        .answers(202, of::<batch::Asked>),
    Call::new("get", "/api/v1/runs/{id}", "Batch", "A run with every attempt at its tasks").answers(200, object),
    Call::new("get", "/api/v1/runs/{id}/log", "Batch", "A run's log lines, oldest first")
        .query(of::<batch::Lines>)
        .answers(200, objects),
    Call::new("post", "/api/v1/runs/{id}/cancel", "Batch", "Stop a run at its next step")
        .answers(202, of::<batch::Asked>),
    Call::new("post", "/api/v1/runs/{id}/retry", "Batch", "Go on with a run at the task that failed")
        .answers(202, of::<batch::Asked>),
    Call::new("get", "/api/v1/backfills/plan", "Batch", "What making dates of silver again would do")
        .query(of::<backfill::Asked>)
        .answers(200, object),
    Call::new("post", "/api/v1/backfills", "Batch", "Make dates of silver again from Bronze, and what depends on them")
        .body(of::<batch::Range>)
        .answers(202, of::<batch::Asked>),
    Call::new("post", "/api/v1/schedules/{pipeline}/pause", "Batch", "Start no run by schedule until resumed")
        .answers(200, of::<batch::Schedule>),
    Call::new("post", "/api/v1/schedules/{pipeline}/resume", "Batch", "Let the schedule go on")
        .answers(200, of::<batch::Schedule>),
    Call::new("get", "/api/v1/tables", "Data", "The Delta tables and what they hold").answers(200, objects),
    Call::new("get", "/api/v1/tables/{table}", "Data", "A table with its columns and newest versions")
        .answers(200, object),
    Call::new("get", "/api/v1/clickhouse/tables", "Data", "The tables and views in ClickHouse and what they hold")
        .answers(200, list::<Served>),
    Call::new("get", "/api/v1/clickhouse/tables/{table}", "Data", "A table or view of ClickHouse with its columns")
        .answers(200, of::<WholeServed>),
    Call::new("post", "/api/v1/sql", "Data", "Run one statement that reads")
        .body(of::<data::Statement>)
        .answers(200, of::<Answer>),
    Call::new("get", "/api/v1/sql/running", "Data", "The caller's statements under way")
        .answers(200, list::<query::Standing>),
    Call::new("post", "/api/v1/sql/cancel", "Data", "End a statement of the caller's")
        .body(of::<sql::Which>)
        .answers_nothing(),
    Call::new("get", "/api/v1/sql/words", "Data", "Tables, columns and functions that a statement may name")
        .query(of::<sql::Of>)
        .answers(200, of::<Words>),
    Call::new("get", "/api/v1/quality", "Data", "How expectations were met by the newest runs, newest first")
        .query(of::<data::Runs>)
        .answers(200, objects),
    Call::new("get", "/api/v1/dead-letters", "Data", "The newest dead letters, each with its state")
        .query(of::<letters::Asked>)
        .answers(200, objects),
    Call::new("post", "/api/v1/dead-letters/check", "Data", "What a corrected letter would be; nothing is sent")
        .body(of::<Correction>)
        .answers(200, object),
    Call::new("post", "/api/v1/dead-letters/redrive", "Data", "Send a corrected letter to the topic")
        .body(of::<Correction>)
        .answers(200, of::<Sent>),
    Call::new(
        "post",
        "/api/v1/dead-letters/check-all",
        "Data",
        "What one correction makes of many letters; nothing is sent",
    )
    .body(of::<Many>)
    .answers(200, object),
    Call::new("post", "/api/v1/dead-letters/redrive-all", "Data", "Send all open letters that fit again, corrected")
        .body(of::<Many>)
        .answers(200, of::<Redriven>),
    Call::new(
        "get",
        "/api/v1/records/{source}",
        "Data",
        "One record as Bronze keeps it, by topic/generation/partition/offset",
    )
    .answers(200, object),
    Call::new("get", "/api/v1/reconcile", "Data", "How every layer compares with the one that it is made from")
        .answers(200, of::<Standing>),
    Call::new("post", "/api/v1/reconcile", "Data", "Compare every layer again, in the background")
        .answers(202, of::<Standing>),
    Call::new("post", "/api/v1/reconcile/stop", "Data", "End the comparison under way").answers(202, of::<Standing>),
    Call::new(
        "get",
        "/api/v1/trace/{event}",
        "Data",
        "An event's whole way, by its id or topic/partition/offset; a user's newest search ends the one before",
    )
    .answers(200, object),
    Call::new("get", "/api/v1/configuration", "Administration", "The values in force and where each comes from")
        .answers(200, list::<Shown>),
    Call::new("get", "/api/v1/audit", "Administration", "Who did what, newest first")
        .query(of::<crate::console::pages::audit::Asked>)
        .answers(200, list::<Entry>),
    Call::new("get", "/api/v1/users", "Administration", "Users and API tokens").answers(200, of::<admin::Everybody>),
    Call::new("post", "/api/v1/users", "Administration", "Add or change a user").body(of::<NewUser>).answers_nothing(),
    Call::new("delete", "/api/v1/users/{name}", "Administration", "Remove a user").answers_nothing(),
    Call::new("post", "/api/v1/tokens", "Administration", "Make an API token, shown once")
        .body(of::<NewToken>)
        .answers(201, of::<admin::Made>),
    Call::new("delete", "/api/v1/tokens/{name}", "Administration", "Remove an API token").answers_nothing(),
    Call::new("get", "/api/v1/openapi.json", "State", "This description").answers(200, object),
];

fn operation(call: &Call) -> Value {
    let of_path = call
        .path_parameters()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let asked = call.asks().unwrap_or_default();
    let none = Map::new();
    let of_query = asked["properties"].as_object().unwrap_or(&none).iter().map(|(name, schema)| {
        json!({ "name": name, "in": "query", "required": false, "schema": schema, "description": schema["description"].as_str().unwrap_or_default() })
    });
    let mut answers = Map::new();
    let mut good = json!({ "description": "Done" });
    if let Some(answer) = call.answer {
        good["content"] = json!({ "application/json": { "schema": answer() } });
    }
    answers.insert(call.status.to_string(), good);
    let failure = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Failure" } } });
    for (status, text) in [
        ("401", "Not signed in"),
        ("403", "The role does not suffice, or the token of a change is missing"),
        ("4XX", "Not done; the text says why and what to do"),
        ("503", "Something does not answer"),
    ] {
        answers.insert(status.into(), json!({ "description": text, "content": failure }));
    }
    let id: String = call
        .path
        .trim_start_matches("/api/v1/")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut operation = json!({
        "operationId": format!("{}_{id}", call.method),
        "summary": call.summary,
        "description": format!("Needs the role {}.", call.role()),
        "tags": [call.group],
        "parameters": of_path.chain(of_query).collect::<Vec<_>>(),
        "responses": answers,
    });
    if let Some(body) = call.takes() {
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": body } } });
    }
    operation
}

/// The OpenAPI document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for call in CALLS {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method] = operation(call);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Boathouse",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything that the console does. Field names carry their units, moments are RFC 3339 in UTC.",
        },
        "paths": paths,
        "components": {
            "schemas": { "Failure": of::<Failure>() },
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "session": { "type": "apiKey", "in": "cookie", "name": crate::console::gate::SESSION },
            },
        },
        "security": [{ "token": [] }, { "session": [] }],
    })
}

pub async fn serve() -> HttpResponse {
    HttpResponse::Ok().json(document())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_described_once_and_whole() {
        let document = document();
        let described: usize =
            document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
        assert_eq!(described, CALLS.len());
        let text = document.to_string();
        assert_eq!(
            text.matches("\"$ref\"").count(),
            text.matches("#/components/schemas/Failure").count(),
            "no other reference is left open"
        );
        let new = &document["paths"]["/api/v1/runs"]["post"];
        assert_eq!(
            new["requestBody"]["content"]["application/json"]["schema"]["properties"]["pipeline"]["type"],
            "string"
        );
        assert_eq!(document["paths"]["/api/v1/runs/{id}/log"]["get"]["parameters"].as_array().unwrap().len(), 6);
    }
}
