//! The server: its threads, its routes, its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpResponse, HttpServer, ResponseError, web};
use chrono::Utc;

use super::access::{Access, Local, Users};
use super::audit::Audit;
use super::completion::Completion;
use super::days::Days;
use super::desk::{self, Desk};
use super::gate::{self, BODY_BYTES_MAX};
use super::live::Hub;
use super::logs::Logs;
use super::pages::ticked::Outcomes;
use super::problem::Problem;
use super::query::Queries;
use super::rates::Rates;
use super::shared::Shared;
use super::tables::Tables;
use super::tap::Taps;
use super::traces::Traces;
use super::{api, assets, pages, tls};
use crate::config::{Pipeline, Server, Setting};
use crate::holds::Holds;
use crate::priority;
use crate::reconcile::job::Job;
use crate::standstill::Standstills;
use crate::telemetry::{Board, Limits};

/// Threads that answer requests.
const WORKERS: usize = 2;
/// A connection that has not sent a whole request head by then is closed.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Connections per worker.
const CONNECTIONS: usize = 1_000;

/// Why the console could not start.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error(
        "cannot listen on {listen} for the console: {source}; set console.listen in boathouse.toml \
         (or BOATHOUSE__CONSOLE__LISTEN) to a free host:port, or to \"\" for no console"
    )]
    Listen { listen: String, source: std::io::Error },
    #[error("the console cannot start: {0:#}")]
    Setup(anyhow::Error),
}

/// What the console is given.
pub struct Given {
    pub board: Board,
    pub limits: Limits,
    pub server: Arc<Server>,
    pub pipelines: Vec<Arc<Pipeline>>,
    pub settings: Vec<Setting>,
    pub holds: Holds,
    pub standstills: Standstills,
    pub reconcile: Job,
}

/// The running console.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    server: ServerHandle,
    hub: Hub,
    taps: Taps,
    local: Arc<Local>,
    rates: Rates,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Binds `console.listen` and serves until [`Console::stop`]. The first start makes the first user.
    pub fn start(given: Given) -> Result<Self, ConsoleError> {
        let listen = given.server.console.listen.clone();
        let fail = |source| ConsoleError::Listen { listen: listen.clone(), source };
        // Bound here, before the thread, so that a port in use is the caller's error.
        let socket = std::net::TcpListener::bind(&listen).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        let console = &given.server.console;
        let tls =
            tls::load(console.tls_certificate.as_deref(), console.tls_key.as_deref()).map_err(ConsoleError::Setup)?;
        let access =
            Access::open(&given.server.data_dir, console.session_idle, address).map_err(ConsoleError::Setup)?;
        let threads = desk_threads().map_err(|e| ConsoleError::Setup(e.into()))?;
        let (hub, taps, local) = (Hub::default(), Taps::default(), access.local());
        let tables = Tables::new(given.server.clone());
        let (folder, meter) = (Users::folder(&given.server.data_dir), Arc::default());
        let names: Vec<String> = given.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
        let rates = Rates::open(&folder, Arc::clone(&meter), &names, Utc::now());
        let shared = Shared {
            audit: Audit::open(&folder),
            board: given.board,
            limits: given.limits,
            desk: Desk::new(threads.clone(), given.server.clone()),
            queries: Queries::new(given.server.clone(), tables.clone()),
            tables: tables.clone(),
            completion: Completion::default(),
            logs: Logs::default(),
            days: Days::default(),
            traces: Traces::default(),
            outcomes: Outcomes::default(),
            reconcile: given.reconcile,
            server: given.server,
            pipelines: given.pipelines.into(),
            settings: given.settings.into(),
            access,
            hub: hub.clone(),
            meter: meter.clone(),
            rates: rates.clone(),
            holds: given.holds,
            standstills: given.standstills,
            taps: taps.clone(),
        };
        // So that the first look is no slower than the others; who looks first is told of what does not work.
        threads.spawn(async move { drop(tables.all().await) });
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("console".to_owned()).spawn(move || {
            priority::lower();
            actix_web::rt::System::new().block_on(async move {
                let looking = actix_web::rt::spawn(shared.hub.clone().keep(shared.clone()));
                let server = HttpServer::new(move || {
                    // Made once on each worker's own thread.
                    priority::lower();
                    let shared = shared.clone();
                    App::new()
                        .configure(move |config| routes(config, shared))
                        .default_service(web::to(nowhere))
                        .wrap(from_fn(gate::gate))
                        .wrap(from_fn(gate::headers))
                })
                .workers(WORKERS)
                .max_connections(CONNECTIONS)
                .client_request_timeout(REQUEST_LIMIT)
                .disable_signals()
                .shutdown_timeout(1);
                let server = match tls {
                    Some(tls) => server.listen_rustls_0_23(socket, tls),
                    None => server.listen(socket),
                };
                match server.map(HttpServer::run) {
                    Ok(server) => {
                        // The other end waits for exactly this; if it is gone, nobody needs the handle.
                        let _ = tell.send(Ok(server.handle()));
                        if let Err(error) = server.await {
                            tracing::error!(%error, "the console ended; restart the daemon to have it back");
                        }
                    }
                    Err(error) => {
                        let _ = tell.send(Err(error));
                    }
                }
                looking.abort();
            });
        });
        let thread = thread.map_err(|source| ConsoleError::Listen { listen: listen.clone(), source })?;
        let server = told
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the console's thread died")))
            .map_err(|source| ConsoleError::Listen { listen, source })?;
        Ok(Self { address, server, hub, taps, local, rates, thread: Some(thread) })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every live connection, stops serving and joins the thread.
    pub async fn stop(mut self) {
        self.hub.close();
        self.taps.close();
        self.local.forget();
        self.server.stop(true).await;
        if let Some(thread) = self.thread.take()
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::warn!("the console's thread could not be joined");
        }
        // A panic of it has been told by its hook.
        let _ = tokio::task::spawn_blocking(move || self.rates.write()).await;
    }
}

fn routes(config: &mut web::ServiceConfig, shared: Shared) {
    let json = web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(|error, _| {
        unreadable(&error, format!("the body is not the JSON that this call takes: {error}")).into()
    });
    let form = web::FormConfig::default()
        .limit(BODY_BYTES_MAX)
        .error_handler(|error, _| unreadable(&error, format!("the form is not as this page takes it: {error}")).into());
    let query = web::QueryConfig::default().error_handler(|error, _| {
        Problem::refused(format!("the address holds something that this page does not take: {error}")).into()
    });
    config
        .app_data(web::Data::new(shared))
        .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
        .app_data(json)
        .app_data(form)
        .app_data(query)
        .route("/healthz", web::get().to(|| async { HttpResponse::Ok().content_type("text/plain").body("ok\n") }))
        .route("/assets/{name}", web::get().to(assets::serve))
        .configure(api::routes)
        .configure(pages::routes);
}

/// A body that cannot be taken: too large, or not what it should be.
fn unreadable(error: &impl ResponseError, text: String) -> Problem {
    match error.status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request is at most {BODY_BYTES_MAX} bytes"))
        }
        _ => Problem::refused(text),
    }
}

async fn nowhere() -> Result<HttpResponse, Problem> {
    Err(Problem::missing("there is nothing at this address"))
}

/// They end with the process. Shutting them down would drop tasks while others wait for their answers, over which
/// delta-rs panics; and a start that fails on the way must not wait for them.
fn desk_threads() -> std::io::Result<tokio::runtime::Handle> {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(desk::THREADS)
        // Reading a table's log holds one that waits for others; they come as they are needed and go again.
        .max_blocking_threads(64)
        .thread_name("console-desk")
        .on_thread_start(priority::lower)
        .enable_all()
        .build()?;
    let handle = threads.handle().clone();
    std::mem::forget(threads);
    Ok(handle)
}
