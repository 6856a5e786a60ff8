//! `boathouse-clickhouse`: ClickHouse's engine on a folder, behind its HTTP interface.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use boathouse::config::units::ByteSize;
use boathouse::engine::boot::{Engine, find_library};
use boathouse::engine::http::{Server, listen};
use boathouse::engine::users::Users;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// The ClickHouse engine on a folder, behind ClickHouse's HTTP interface.
///
/// Any ClickHouse client that speaks HTTP works unchanged:
///
///   boathouse-clickhouse --path data/clickhouse
///   curl http://127.0.0.1:8123/ --data 'SELECT version()'
///
/// Every request is a session of its own. Files, hosts and programs are out of reach of every user.
#[allow(rustdoc::broken_intra_doc_links, reason = "help texts are shown as they are, brackets and all")]
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    /// Folder of the data; made when missing, used by one engine at a time
    #[arg(long, env = "BOATHOUSE_CLICKHOUSE_PATH", value_name = "DIR")]
    path: PathBuf,

    /// Address of the HTTP interface; port 0 takes a free one
    #[arg(long, env = "BOATHOUSE_CLICKHOUSE_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:8123")]
    listen: SocketAddr,

    /// TOML file of users; without it there is one user `default` without a password, on loopback only
    ///
    /// [[user]]
    /// name = "grafana"
    /// access = "read"                  # read, write (default) or admin
    /// password_file = "grafana.secret" # or password, password_env, password_sha256
    #[arg(long, env = "BOATHOUSE_CLICKHOUSE_USERS", value_name = "FILE.toml", verbatim_doc_comment)]
    users: Option<PathBuf>,

    /// Statements that may run at once; more are answered 503, code 202
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent_requests: u16,

    /// Largest request body, on the wire and unpacked; a larger one is answered 413
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    max_body: ByteSize,

    /// Memory for all statements together; a statement beyond it fails with code 241
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    memory_limit: ByteSize,

    /// How long running statements may take after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    stop_deadline: Duration,

    /// libchdb.so; without it the one that `make tools` puts into the user's cache folder
    #[arg(long, env = "BOATHOUSE_LIBCHDB", value_name = "FILE")]
    library: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BOATHOUSE_LOG")
                .unwrap_or_else(|_| "info,actix_server=warn".into()),
        )
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let code = match run(Args::parse()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("boathouse-clickhouse: {error:#}");
            1
        }
    };
    leave(code)
}

/// Leaves without running destructors: the engine's own shutdown may crash while tables are open, and what it holds is
/// on disk already.
fn leave(code: i32) -> ! {
    use std::io::Write;
    let _ = std::io::stderr().flush();
    boathouse::engine::leave(code)
}

fn run(args: Args) -> anyhow::Result<()> {
    let users = match &args.users {
        Some(path) => Users::load(path)?,
        None => Users::open_default(),
    };
    users.check_exposure(args.listen.ip())?;
    let library = find_library(args.library.as_deref())?;
    // The address first: a port in use is found before the engine touches the folder.
    let probe = std::net::TcpListener::bind(args.listen).with_context(|| in_use(args.listen))?;
    drop(probe);
    let engine = Engine::start(&library, &args.path, args.memory_limit.0)?;
    actix_web::rt::System::new().block_on(serve(args, users, engine))
}

async fn serve(args: Args, users: Users, engine: Engine) -> anyhow::Result<()> {
    let requests_max = usize::from(args.max_concurrent_requests);
    let version = engine.version.clone();
    let server = Arc::new(Server {
        engine,
        users,
        requests: Arc::new(Semaphore::new(requests_max)),
        requests_max,
        body_bytes_max: args.max_body.0,
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (http, address) = listen(server.clone(), args.listen).with_context(|| in_use(args.listen))?;
    let handle = http.handle();
    actix_web::rt::spawn(http);
    tracing::info!("ClickHouse engine {version} listening on http://{address} (data in {})", args.path.display());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: no new requests; running ones have {}", humantime::format_duration(args.stop_deadline));
    handle.pause().await;
    if !server.drain(args.stop_deadline).await {
        tracing::warn!("statements still ran at the stop deadline and were broken off");
    }
    handle.stop(true).await;
    tracing::info!("stopped");
    Ok(())
}

fn in_use(address: SocketAddr) -> String {
    format!("cannot listen on {address}; choose another address with --listen or BOATHOUSE_CLICKHOUSE_LISTEN")
}
