//! The connection to ClickHouse's HTTP interface. Every request has a time limit, every error says what was tried.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::query::Query;

use super::error::{Error, ErrorKind};
use crate::config;

/// Longest wait for a flush's insert or a short query.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for DDL and for loading cells.
const SLOW_LIMIT: Duration = Duration::from_secs(300);

/// A ClickHouse server. Cheap to clone; connections are shared.
#[derive(Clone)]
pub struct Client {
    inner: clickhouse::Client,
    /// The address without credentials, for messages.
    server: String,
    request_limit: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// No connection is made yet; only the configuration can be wrong here.
    pub fn new(config: &config::ClickHouse) -> Result<Self, Error> {
        let refuse = |what: &str, message: String| Error::new(ErrorKind::Permanent, what, "clickhouse.url", message);
        let url = url::Url::parse(&config.url)
            .map_err(|e| refuse("read clickhouse.url", format!("`{}` is no URL ({e})", config.url)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("read clickhouse.url", format!("`{}` must begin with http:// or https://", config.url)));
        }
        let password = match &config.password_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| refuse("read clickhouse.password_file", format!("{}: {e}", file.display())))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            None => config.password.reveal().to_owned(),
        };
        let inner = clickhouse::Client::default()
            .with_url(config.url.as_str())
            .with_user(config.user.as_str())
            .with_password(password)
            .with_compression(clickhouse::Compression::None)
            .with_product_info("boathouse", env!("CARGO_PKG_VERSION"));
        Ok(Self { inner, server: url.origin().ascii_serialization(), request_limit: REQUEST_LIMIT })
    }

    /// The same server with another limit on the time that a flush's insert or a short query may take.
    pub fn with_request_limit(mut self, limit: Duration) -> Self {
        self.request_limit = limit;
        self
    }

    /// The server's address without credentials, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether the server answers and accepts the user.
    pub async fn ping(&self) -> Result<(), Error> {
        let what = "ping";
        self.limited(what, self.request_limit, self.inner.query("SELECT 1").execute()).await
    }

    pub(super) fn query(&self, sql: &str) -> Query {
        self.inner.query(sql)
    }

    /// Runs a statement that answers nothing: DDL, mostly.
    pub(super) async fn execute(&self, what: &str, sql: &str) -> Result<(), Error> {
        // `query_raw`: a question mark in the statement is no placeholder.
        self.limited(what, SLOW_LIMIT, self.inner.query_raw(sql).execute()).await
    }

    /// All rows of a short answer.
    pub(super) async fn rows<T>(&self, what: &str, query: Query) -> Result<Vec<T>, Error>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        self.limited(what, self.request_limit, query.fetch_all::<T>()).await
    }

    /// An answer in RowBinary, whole.
    pub(super) async fn row_binary(&self, what: &str, query: Query) -> Result<Bytes, Error> {
        // The server answers once it has everything: an error half way is an error, not a short answer.
        let query = query.with_setting("wait_end_of_query", "1");
        self.limited(what, SLOW_LIMIT, async { query.fetch_bytes("RowBinary")?.collect().await }).await
    }

    /// Inserts rows in RowBinary and waits until the server has them on disk, which the tables' own settings see to
    /// ([`super::schema::DURABLE`]).
    pub(super) async fn insert(&self, what: &str, into: &str, rows: Bytes) -> Result<(), Error> {
        let mut insert = self
            .inner
            .insert_formatted_with(format!("INSERT INTO {into} FORMAT RowBinary"))
            // A profile may have turned asynchronous inserts on, which acknowledge before anything is written.
            .with_setting("async_insert", "0");
        self.limited(what, self.request_limit, async move {
            insert.send(rows).await?;
            insert.end().await
        })
        .await
    }

    /// One step of an answer that comes in pieces.
    pub(super) async fn slowly<T>(
        &self,
        what: &str,
        step: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> Result<T, Error> {
        self.limited(what, SLOW_LIMIT, step).await
    }

    async fn limited<T>(
        &self,
        what: &str,
        limit: Duration,
        request: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::from_client(what, &self.server, &error)),
            Err(_) => Err(Error::timeout(what, &self.server, limit)),
        }
    }

    pub(super) fn error(&self, kind: ErrorKind, what: &str, message: impl Into<String>) -> Error {
        Error::new(kind, what, &self.server, message)
    }
}
