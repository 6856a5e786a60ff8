//! ClickHouse's HTTP interface on actix-web. The workers only move bytes; the engine is called on threads of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use super::body::{Body, BodyError};
use super::boot::Engine;
use super::error::{EngineError, code};
use super::execute;
use super::reply::{Chunk, Receiving, Reply};
use super::request::{Request, check_not_a_page, credentials};
use super::users::Users;

/// ClickHouse's parser and analyser recurse deeply: what its own query threads have.
const REQUEST_STACK_BYTES: usize = 8 << 20;

/// A client that sends nothing of its body for this long is taken for gone.
const STALLED: Duration = Duration::from_secs(300);

/// How much of a body beyond the limit is read for the sake of the answer.
const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// How long the marked error at the end of a broken-off response has to reach the socket.
const FLUSH_BEFORE_BREAK: Duration = Duration::from_millis(200);

/// What every request handler shares.
pub struct Server {
    pub engine: Engine,
    pub users: Users,
    /// Statements that may run at once.
    pub requests: Arc<Semaphore>,
    pub requests_max: usize,
    /// Largest body, in bytes, on the wire and unpacked.
    pub body_bytes_max: u64,
}

impl Server {
    /// Takes no further statement and waits until none runs, at most `deadline`; tells whether that was reached.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let all = u32::try_from(self.requests_max).unwrap_or(u32::MAX);
        // While this waits for all places, nobody else gets one.
        let drained = tokio::time::timeout(deadline, self.requests.acquire_many(all)).await.is_ok();
        self.requests.close();
        drained
    }
}

/// Binds the address and starts serving; the returned server runs until it is stopped.
pub fn listen(server: Arc<Server>, address: SocketAddr) -> std::io::Result<(actix_web::dev::Server, SocketAddr)> {
    let data = web::Data::from(server);
    let http = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route("/ping", web::get().to(ok))
            .route("/ping", web::head().to(ok))
            .route("/replicas_status", web::get().to(ok))
            .route("/", web::get().to(front))
            .route("/", web::head().to(ok))
            .route("/", web::post().to(query))
            .default_service(web::route().to(not_found))
    })
    .workers(2)
    .disable_signals()
    .keep_alive(Duration::from_secs(30))
    .client_request_timeout(Duration::from_secs(30))
    .shutdown_timeout(5)
    .bind(address)?;
    let bound = http.addrs().first().copied().unwrap_or(address);
    Ok((http.run(), bound))
}

async fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=UTF-8").body("Ok.\n")
}

async fn not_found(http: HttpRequest) -> HttpResponse {
    let text = format!(
        "There is no handle {}\n\nUse / or /ping for health checks.\nOr /replicas_status for more sophisticated health \
         checks.\nSend queries from your program with POST method or GET /?query=...\n",
        http.path().escape_default()
    );
    HttpResponse::NotFound().content_type("text/plain; charset=UTF-8").body(text)
}

/// `GET /` without a query is a health check.
async fn front(http: HttpRequest, payload: web::Payload, server: web::Data<Server>) -> HttpResponse {
    if http.query_string().is_empty() { ok().await } else { query(http, payload, server).await }
}

async fn query(http: HttpRequest, payload: web::Payload, server: web::Data<Server>) -> HttpResponse {
    match start(&http, payload, server.into_inner()) {
        Ok((receiving, query_id)) => respond(receiving, &query_id).await,
        Err((error, version)) => refuse(&error, &version),
    }
}

/// Checks who asks, takes a place among the running statements and starts the request's thread.
fn start(
    http: &HttpRequest,
    payload: web::Payload,
    server: Arc<Server>,
) -> Result<(Receiving, String), (EngineError, String)> {
    let version = server.engine.version.clone();
    let begin = || -> Result<(Receiving, String), EngineError> {
        let given = credentials(http.query_string(), http.headers())?;
        let identity = server.users.authenticate(&given.user, &given.password)?;
        if !identity.by_password {
            check_not_a_page(http.headers())?;
        }
        let request = Request::parse(http.method(), http.query_string(), http.headers())?;
        let permit = take_place(&server)?;
        let query_id = request.query_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let (reply, receiving) = Reply::new(&request, &query_id, &server.engine.timezone, &server.engine.version);
        let (chunks, body_chunks) = mpsc::channel(4);
        actix_web::rt::spawn(pump(payload, chunks, server.body_bytes_max));
        let limit = server.body_bytes_max;
        std::thread::Builder::new()
            .name("ch-request".to_owned())
            .stack_size(REQUEST_STACK_BYTES)
            .spawn(move || {
                let body = Body::new(body_chunks, &request, limit);
                execute::serve(&server.engine, request, &identity, body, reply, permit);
            })
            .map_err(|e| EngineError::internal(format_args!("no thread for the request: {e}")))?;
        Ok((receiving, query_id))
    };
    begin().map_err(|e| (e, version))
}

fn take_place(server: &Server) -> Result<OwnedSemaphorePermit, EngineError> {
    server.requests.clone().try_acquire_owned().map_err(|reason| match reason {
        TryAcquireError::NoPermits => EngineError::new(
            code::TOO_MANY_SIMULTANEOUS_QUERIES,
            format_args!("Too many simultaneous queries. Maximum: {} (--max-concurrent-requests)", server.requests_max),
        ),
        TryAcquireError::Closed => EngineError::new(code::SERVER_OVERLOADED, "the server is stopping"),
    })
}

/// Moves the body from the connection to the request's thread, which holds it back by not reading. What is left when
/// the thread wants no more is read and thrown away: a client that is still sending would not see the answer.
async fn pump(mut payload: web::Payload, chunks: mpsc::Sender<Result<web::Bytes, BodyError>>, limit: u64) {
    let mut total = 0_u64;
    let mut wanted = true;
    while total <= limit.saturating_add(DISCARD_BYTES_MAX) {
        let piece = match tokio::time::timeout(STALLED, payload.next()).await {
            Ok(Some(Ok(bytes))) => {
                total += bytes.len() as u64;
                if total > limit { Err(BodyError::TooLarge { limit }) } else { Ok(bytes) }
            }
            Ok(None) => return,
            Ok(Some(Err(_))) | Err(_) => Err(BodyError::Lost),
        };
        let lost = matches!(piece, Err(BodyError::Lost));
        if wanted {
            wanted = piece.is_ok();
            wanted &= chunks.send(piece).await.is_ok();
        }
        if lost {
            return;
        }
    }
}

async fn respond(receiving: Receiving, query_id: &str) -> HttpResponse {
    let Ok(head) = receiving.head.await else {
        tracing::error!(query_id, "a request's thread ended without an answer");
        return HttpResponse::InternalServerError()
            .body("Code: 1001. DB::Exception: the request was lost (STD_EXCEPTION)\n");
    };
    let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    response.insert_header(("X-ClickHouse-Server-Display-Name", "boathouse"));
    for (name, value) in head.headers {
        response.insert_header((name, value));
    }
    match head.whole {
        Some(body) => response.body(body),
        None => response.streaming(Box::pin(stream(receiving.chunks))),
    }
}

/// The chunks of a body as a stream.
fn stream(receiver: mpsc::Receiver<Chunk>) -> impl futures::Stream<Item = Chunk> {
    futures::stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        if chunk.is_err() {
            // Breaking off throws away what actix-web has not written yet, and the reason is in there.
            tokio::time::sleep(FLUSH_BEFORE_BREAK).await;
        }
        Some((chunk, receiver))
    })
}

fn refuse(error: &EngineError, version: &str) -> HttpResponse {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if error.code == code::AUTHENTICATION_FAILED.0 {
        tracing::warn!(code = error.code, "a request was refused: wrong user or password");
    }
    response
        .insert_header(("X-ClickHouse-Exception-Code", error.code.to_string()))
        .insert_header(("X-ClickHouse-Server-Display-Name", "boathouse"))
        .content_type("text/plain; charset=UTF-8")
        .body(format!("{} (version {version})\n", error.message))
}
