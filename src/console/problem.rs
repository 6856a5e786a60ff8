//! What a request that was not carried out is answered with: a page for people, JSON for programs.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use super::view;

/// What an API call that failed answers.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Failure {
    /// What happened, and what to do.
    pub error: String,
}

/// Why a request was not carried out.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub text: String,
    /// Whether a program asked.
    json: bool,
}

impl Problem {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), json: false }
    }

    pub fn missing(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// A mistake of this program's.
    pub fn broken() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the console made a mistake; the daemon's log says which")
    }

    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, text)
    }

    /// For a path: programs that ask below `/api/` are told in JSON. Who refuses need not know: the gate does it for
    /// every answer.
    pub fn at(mut self, path: &str) -> Self {
        self.json = path.starts_with("/api/");
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Something that the console needs did not answer.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}"))
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if self.json {
            return response.json(Failure { error: self.text.clone() });
        }
        response.content_type(ContentType::html()).body(view::problem_page(self).into_string())
    }
}
