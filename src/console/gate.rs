//! What every request passes: who asks, whether they may, whether a change was meant, and the headers of every answer.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, ResponseError, web};
use chrono::Utc;

use super::access::{Caller, Via, is_public, needed, secret};
use super::audit::{Audit, Entry};
use super::problem::Problem;
use super::shared::Shared;
use super::view::{SHOWN, cookie, encoded, go};

/// The session's cookie.
pub const SESSION: &str = "boathouse_session";
/// Where a script puts the token that a change must bring along; a form has it as the field `csrf`.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// The user that a command on this machine is run by, for the audit log.
pub const UID_HEADER: &str = "x-boathouse-uid";
/// No request is larger.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// What is kept of a body in the audit log.
const DETAIL_BYTES_MAX: usize = 2_000;

/// Everything comes from this server; no script, style or frame from elsewhere, none inside a page.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

/// Adds the security headers to every answer, whoever made it.
pub async fn headers(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let secure = request.app_data::<web::Data<Shared>>().is_some_and(|shared| shared.secure());
    let mut response = for_whom_asks(next.call(request).await?.map_into_boxed_body());
    let map = response.headers_mut();
    for (name, value) in HEADERS {
        map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if !map.contains_key(header::CACHE_CONTROL) {
        map.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if secure {
        map.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    Ok(response)
}

/// An answer that refuses, in the form that suits its path, whoever refused.
fn for_whom_asks(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    let Some(problem) = problem.map(|problem| problem.clone().at(response.request().path())) else { return response };
    let (head, body) = problem.error_response().into_parts();
    response.map_body(|own, _| {
        for (name, value) in head.headers() {
            own.headers_mut().insert(name.clone(), value.clone());
        }
        body
    })
}

/// Lets through who may come in.
pub async fn gate(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(shared) = request.app_data::<web::Data<Shared>>().cloned() else {
        return Ok(request.error_response(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the console is not set up")));
    };
    let path = request.path().to_owned();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && comes_from_elsewhere(&request) {
        let text = "this came from a page of another server; open the console itself and try again";
        return Ok(request.error_response(Problem::new(StatusCode::FORBIDDEN, text)));
    }
    if is_public(&path) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let Some(caller) = caller(&request, &shared) else { return Ok(unknown(request, reads)) };
    let role = needed(reads, &path);
    if !caller.may(role) {
        let text = format!("this needs the role {role}; {} is {}", caller.name, caller.role);
        if !reads {
            shared.audit.add(&entry(&request, &caller, String::new(), StatusCode::FORBIDDEN));
        }
        return Ok(request.error_response(Problem::new(StatusCode::FORBIDDEN, text)));
    }
    if reads {
        request.extensions_mut().insert(caller);
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let body = match request.extract::<web::Bytes>().await {
        Ok(body) => body,
        Err(_) => {
            let text = format!("a request is at most {BODY_BYTES_MAX} bytes");
            return Ok(request.error_response(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)));
        }
    };
    let fields = form_fields(&request, &body);
    if let Via::Session { csrf, .. } = &caller.via {
        let header = request.headers().get(CSRF_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let field = fields.iter().find(|(name, _)| name == "csrf").map(|(_, value)| value.clone());
        if !header.or(field).is_some_and(|sent| secret::same(&sent, csrf)) {
            shared.audit.add(&entry(&request, &caller, "without its token".into(), StatusCode::FORBIDDEN));
            let text =
                "this page is older than your session, or the request did not come from it; reload and try again";
            return Ok(request.error_response(Problem::new(StatusCode::FORBIDDEN, text)));
        }
    }
    let detail = detail(&fields, &body);
    request.set_payload(Payload::from(body));
    request.extensions_mut().insert(caller.clone());
    let noted = Noted { audit: &shared.audit, entry: Some(entry(&request, &caller, detail, StatusCode::OK)) };
    let response = next.call(request).await;
    noted.ended(match &response {
        Ok(response) => response.status().as_u16(),
        Err(error) => error.as_response_error().status_code().as_u16(),
    });
    response.map(ServiceResponse::map_into_boxed_body)
}

/// An action on its way into the audit log: it comes there even if whoever asked is gone before the answer, for what they
/// asked for may have been done.
struct Noted<'a> {
    audit: &'a Audit,
    entry: Option<Entry>,
}

/// What the log says of an answer that nobody waited for.
const GONE: u16 = 499;

impl Noted<'_> {
    fn ended(mut self, status: u16) {
        if let Some(entry) = self.entry.take() {
            self.audit.add(&Entry { status, ..entry });
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.audit.add(&Entry { status: GONE, ..entry });
        }
    }
}

fn caller(request: &ServiceRequest, shared: &Shared) -> Option<Caller> {
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        // Who brings a token is judged by it alone.
        let token = value.to_str().ok()?.strip_prefix("Bearer ")?.trim();
        let uid = request.headers().get(UID_HEADER).and_then(|uid| uid.to_str().ok()?.parse().ok());
        let local = || is_of_this_machine(request).then(|| shared.access.by_local_token(token, uid)).flatten();
        return local().or_else(|| shared.access.by_token(token));
    }
    shared.access.by_session(&cookie(request.headers(), SESSION)?)
}

/// Whether a request comes over the loopback, or from the one address that the console is bound to.
fn is_of_this_machine(request: &ServiceRequest) -> bool {
    let Some(peer) = request.peer_addr().map(|peer| peer.ip().to_canonical()) else { return false };
    peer.is_loopback() || peer == request.app_config().local_addr().ip().to_canonical()
}

/// Whether a browser says that another site's page made the request. What sends no such header is no browser.
fn comes_from_elsewhere(request: &ServiceRequest) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if header("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
        return true;
    }
    match (header("origin"), header("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_none_or(|(_, from)| from != host),
        _ => false,
    }
}

/// The answer to somebody who is not signed in.
fn unknown(request: ServiceRequest, reads: bool) -> ServiceResponse<BoxBody> {
    let path = request.path();
    if path.starts_with("/api/") || path.starts_with("/live/") || !reads {
        let text = "sign in, or send an API token as `Authorization: Bearer …`";
        let mut problem = request.error_response(Problem::new(StatusCode::UNAUTHORIZED, text));
        problem.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return problem;
    }
    let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
    let next = encoded(asked);
    request.into_response(go(&format!("/login?next={next}")))
}

fn entry(request: &ServiceRequest, caller: &Caller, detail: String, status: StatusCode) -> Entry {
    Entry {
        at: Utc::now(),
        who: caller.name.clone(),
        from: request.peer_addr().map(|from| from.ip().to_string()).unwrap_or_default(),
        action: format!("{} {}", request.method(), request.path()),
        detail,
        status: status.as_u16(),
    }
}

fn form_fields(request: &ServiceRequest, body: &[u8]) -> Vec<(String, String)> {
    if request.content_type() != "application/x-www-form-urlencoded" {
        return Vec::new();
    }
    url::form_urlencoded::parse(body).into_owned().collect()
}

/// What the audit log keeps of a body: no passwords, no tokens, and not which page it was sent from.
fn detail(fields: &[(String, String)], body: &[u8]) -> String {
    let mut detail = if fields.is_empty() {
        let mut value = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| !is_secret(key));
        }
        if value.is_null() { String::new() } else { value.to_string() }
    } else {
        let shown = fields.iter().filter(|(name, _)| !is_secret(name) && name != SHOWN);
        shown.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
    detail
}

fn is_secret(name: &str) -> bool {
    name == "csrf" || name.contains("password") || name.contains("token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_noted_whether_or_not_somebody_waits_for_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path());
        let entry = || Entry {
            at: Utc::now(),
            who: "ada".into(),
            from: String::new(),
            action: "POST /stream/pause".into(),
            detail: String::new(),
            status: 200,
        };
        Noted { audit: &audit, entry: Some(entry()) }.ended(303);
        drop(Noted { audit: &audit, entry: Some(entry()) });
        let statuses: Vec<u16> = audit.newest(9).unwrap().iter().map(|entry| entry.status).collect();
        assert_eq!(statuses, [GONE, 303]);
    }

    #[test]
    fn the_audit_log_keeps_no_secrets() {
        let fields: Vec<(String, String)> =
            [("name", "ada"), ("new_password", "hush"), ("csrf", "hush"), ("view", "state=failed")]
                .map(|(name, value)| (name.into(), value.into()))
                .into();
        assert_eq!(detail(&fields, b""), "name=ada");
        assert_eq!(detail(&[], br#"{"sql":"select 1","password":"hush"}"#), r#"{"sql":"select 1"}"#);
        assert_eq!(detail(&[], b"\xff\xfe"), "");
    }
}
