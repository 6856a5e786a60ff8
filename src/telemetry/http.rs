//! The listener for Prometheus, health checks and status. It has a thread of its own, so that it answers whatever the
//! rest of the daemon is busy with.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};

use super::board::Board;
use super::exposition::render_board;
use super::health::{Limits, readiness};
use super::recorder::Recorder;
use super::status::Status;

/// Waiting histogram samples are folded this often.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why the listener could not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {listen} for metrics and health checks: {source}; set metrics.listen in boathouse.toml \
     (or BOATHOUSE__METRICS__LISTEN) to a free host:port"
)]
pub struct ListenError {
    listen: String,
    source: std::io::Error,
}

/// The running listener.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    server: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    board: Board,
    recorder: Recorder,
    limits: Limits,
}

impl Listener {
    /// Binds `listen` (`metrics.listen`; port 0 takes any free port) and serves until [`Listener::stop`].
    pub fn start(listen: &str, board: Board, recorder: Recorder, limits: Limits) -> Result<Self, ListenError> {
        let fail = |source| ListenError { listen: listen.to_owned(), source };
        // Bound here, before the thread, so that a port in use is the caller's error.
        let socket = std::net::TcpListener::bind(listen).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        let shared = Shared { board, recorder, limits };
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                actix_web::rt::System::new().block_on(async move {
                    let upkeep = shared.recorder.clone();
                    let server = HttpServer::new(move || {
                        App::new()
                            .app_data(web::Data::new(shared.clone()))
                            .route("/metrics", web::get().to(metrics))
                            .route("/healthz", web::get().to(healthz))
                            .route("/readyz", web::get().to(readyz))
                            .route("/status", web::get().to(status))
                    })
                    .workers(1)
                    .disable_signals()
                    .shutdown_timeout(1)
                    .listen(socket)
                    .map(HttpServer::run);
                    match server {
                        Ok(server) => {
                            // The other end waits for exactly this; if it is gone, nobody needs the handle.
                            let _ = tell.send(Ok(server.handle()));
                            actix_web::rt::spawn(async move {
                                loop {
                                    tokio::time::sleep(UPKEEP_EVERY).await;
                                    upkeep.upkeep();
                                }
                            });
                            if let Err(error) = server.await {
                                tracing::error!(%error, "the metrics listener ended; restart the daemon to have it back");
                            }
                        }
                        Err(error) => {
                            let _ = tell.send(Err(error));
                        }
                    }
                });
            })
            .map_err(fail)?;
        let server =
            told.recv().unwrap_or_else(|_| Err(std::io::Error::other("the listener's thread died"))).map_err(fail)?;
        Ok(Self { address, server, thread: Some(thread) })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops serving and joins the thread.
    pub async fn stop(mut self) {
        self.server.stop(true).await;
        if let Some(thread) = self.thread.take()
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::warn!("the metrics listener's thread could not be joined");
        }
    }
}

async fn metrics(shared: web::Data<Shared>) -> HttpResponse {
    let mut text = render_board(&shared.board, shared.limits);
    text.push_str(&shared.recorder.render());
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("ok\n")
}

async fn readyz(shared: web::Data<Shared>) -> HttpResponse {
    let health = readiness(&shared.board, Instant::now(), shared.limits);
    if health.ready { HttpResponse::Ok().json(health) } else { HttpResponse::ServiceUnavailable().json(health) }
}

async fn status(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(Status::of(&shared.board, shared.limits))
}
