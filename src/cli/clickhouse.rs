//! ClickHouse over HTTP, as the commands need it: a statement in, an answer in some format out.

use anyhow::{Context as _, anyhow, bail};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncBufReadExt;

use crate::config::ClickHouse;

/// Longest wait for a connection.
const CONNECT_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// A ClickHouse server.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    url: url::Url,
    user: String,
    password: String,
}

impl Http {
    /// Nothing is connected yet. The password file is read now.
    pub fn new(config: &ClickHouse) -> anyhow::Result<Self> {
        let password = match &config.password_file {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("clickhouse.password_file {} cannot be read", file.display()))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            None => config.password.reveal().to_owned(),
        };
        Ok(Self {
            client: reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).build().context("HTTP client")?,
            url: config.url.parse().with_context(|| format!("clickhouse.url `{}`", config.url))?,
            user: config.user.clone(),
            password,
        })
    }

    /// The server's address, for messages.
    pub fn server(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Runs a statement; the answer's body in `format` unless the statement names another.
    pub async fn run(&self, statement: &str, format: &str) -> anyhow::Result<reqwest::Response> {
        let request = self.client.post(self.url.clone()).body(statement.to_owned());
        self.answer(request, format).await
    }

    /// Runs a statement that reads, within a time: in the address of a GET, which the server takes as read-only.
    pub async fn read(
        &self,
        statement: &str,
        format: &str,
        limit: std::time::Duration,
    ) -> anyhow::Result<reqwest::Response> {
        let seconds = limit.as_secs().to_string();
        let request = self.client.get(self.url.clone());
        let request = request.query(&[("query", statement), ("max_execution_time", seconds.as_str())]);
        self.answer(request, format).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder, format: &str) -> anyhow::Result<reqwest::Response> {
        let response = request
            .query(&[
                ("default_format", format),
                // An error half way is an error then, not a short answer.
                ("wait_end_of_query", "1"),
                ("output_format_json_quote_64bit_integers", "0"),
            ])
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .send()
            .await
            .map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let text = text.trim();
        match status.as_u16() {
            401 | 403 => bail!(
                "ClickHouse at {} refuses the user `{}`; set clickhouse.user and clickhouse.password_file\n{text}",
                self.server(),
                self.user
            ),
            _ if text.is_empty() => bail!("ClickHouse at {} answered {status}", self.server()),
            _ => bail!("{text}"),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        anyhow!(
            "ClickHouse at {} does not answer ({cause}); is it running, and is clickhouse.url right?",
            self.server()
        )
    }

    /// Runs a statement; the answer's lines in `format`.
    pub async fn lines(
        &self,
        statement: &str,
        format: &str,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<String>> + Unpin + use<>> {
        Ok(response_lines(self.run(statement, format).await?))
    }

    /// Runs a statement; its rows as JSON arrays.
    pub async fn rows(&self, statement: &str) -> anyhow::Result<Vec<Vec<serde_json::Value>>> {
        let mut lines = self.lines(statement, "JSONCompactEachRow").await?;
        let mut rows = Vec::new();
        while let Some(line) = lines.next().await {
            rows.push(serde_json::from_str(&line?).context("ClickHouse's answer is not JSONCompactEachRow")?);
        }
        Ok(rows)
    }
}

/// An answer's lines, however its chunks fall.
pub(crate) fn response_lines(response: reqwest::Response) -> impl Stream<Item = anyhow::Result<String>> + Unpin {
    let body = response.bytes_stream().map_err(std::io::Error::other);
    let reader = tokio::io::BufReader::new(ChunkReader { body, chunk: bytes::Bytes::new() });
    Box::pin(futures::stream::try_unfold(reader.lines(), |mut lines| async move {
        Ok(lines.next_line().await?.map(|line| (line, lines)))
    }))
}

/// A stream of chunks as something to read from.
struct ChunkReader<S> {
    body: S,
    chunk: bytes::Bytes,
}

impl<S: Stream<Item = std::io::Result<bytes::Bytes>> + Unpin> tokio::io::AsyncRead for ChunkReader<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        use std::task::Poll;
        while self.chunk.is_empty() {
            match std::task::ready!(self.body.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(e)) => return Poll::Ready(Err(e)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.chunk.len().min(buffer.remaining());
        let part = self.chunk.split_to(n);
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}
