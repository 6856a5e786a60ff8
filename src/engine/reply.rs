//! A response on its way from the request's thread to the HTTP worker.
//!
//! Up to 1 MiB of result waits for the end of the statement, so that an early failure gets its proper status and the
//! summary is whole. What is larger streams in chunks; a failure then goes into the body, marked as ClickHouse marks it,
//! and the body is broken off.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::blocks::write_blocks;
use super::error::EngineError;
use super::ffi::Statistics;
use super::request::Request;

/// A client that takes nothing of its result for this long is taken for gone.
const STALLED: Duration = Duration::from_secs(300);

/// Plain result bytes that are held back before streaming starts.
const HOLD_BYTES: usize = 1 << 20;

/// Status and headers of a response.
#[derive(Debug, Default)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// The whole body, when it is already there.
    pub whole: Option<Bytes>,
}

/// A chunk of body; `Err` breaks the response off.
pub type Chunk = Result<Bytes, io::Error>;

/// What the HTTP worker waits on.
pub struct Receiving {
    pub head: oneshot::Receiver<Head>,
    pub chunks: mpsc::Receiver<Chunk>,
}

/// The client is gone: stop working for it.
#[derive(Debug)]
pub struct Gone;

/// Content-Encoding of a response.
enum Encoder {
    Plain(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
}

impl Encoder {
    /// The best of what the client accepts and this server writes, cheapest first.
    fn choose(request: &Request) -> (Self, Option<&'static str>) {
        let plain = || (Self::Plain(Vec::new()), None);
        if !request.http_compression {
            return plain();
        }
        let accepted = request.accept_encoding.as_deref().unwrap_or_default();
        let accepts = |name: &str| {
            accepted.split(',').any(|item| {
                let (coding, quality) = item.split_once(';').unwrap_or((item, ""));
                coding.trim().eq_ignore_ascii_case(name) && !matches!(quality.trim(), "q=0" | "q=0.0")
            })
        };
        let level = flate2::Compression::fast();
        if accepts("lz4") {
            (Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))), Some("lz4"))
        } else if accepts("zstd")
            && let Ok(encoder) = zstd::Encoder::new(Vec::new(), 1)
        {
            (Self::Zstd(encoder), Some("zstd"))
        } else if accepts("gzip") {
            (Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level)), Some("gzip"))
        } else if accepts("deflate") {
            (Self::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), level)), Some("deflate"))
        } else {
            plain()
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(w) => w,
            Self::Gzip(w) => w,
            Self::Deflate(w) => w,
            Self::Zstd(w) => w,
            Self::Lz4(w) => w.as_mut(),
        }
    }

    /// What is encoded so far.
    fn drain(&mut self) -> io::Result<Vec<u8>> {
        self.writer().flush()?;
        Ok(std::mem::take(match self {
            Self::Plain(w) => w,
            Self::Gzip(w) => w.get_mut(),
            Self::Deflate(w) => w.get_mut(),
            Self::Zstd(w) => w.get_mut(),
            Self::Lz4(w) => w.get_mut(),
        }))
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(w) => Ok(w),
            Self::Gzip(w) => w.finish(),
            Self::Deflate(w) => w.finish(),
            Self::Zstd(w) => w.finish(),
            Self::Lz4(w) => w.finish().map_err(io::Error::other),
        }
    }
}

/// Sends one response.
pub struct Reply {
    head: Option<oneshot::Sender<Head>>,
    chunks: mpsc::Sender<Chunk>,
    /// The HTTP worker's runtime, which keeps the time while this thread waits.
    runtime: tokio::runtime::Handle,
    encoder: Encoder,
    encoding: Option<&'static str>,
    blocks: bool,
    wait: bool,
    held: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    version: String,
    tag: String,
    statistics: Statistics,
}

impl Reply {
    /// A response to `request`, and the end that the HTTP worker keeps. Called on the worker.
    pub fn new(request: &Request, query_id: &str, timezone: &str, version: &str) -> (Self, Receiving) {
        let (head, head_rx) = oneshot::channel();
        let (chunks, chunks_rx) = mpsc::channel(4);
        let (encoder, encoding) = Encoder::choose(request);
        let tag: String = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let headers = vec![
            ("X-ClickHouse-Query-Id", query_id.to_owned()),
            ("X-ClickHouse-Timezone", timezone.to_owned()),
            ("X-ClickHouse-Exception-Tag", tag.clone()),
        ];
        let reply = Self {
            head: Some(head),
            chunks,
            runtime: tokio::runtime::Handle::current(),
            encoder,
            encoding,
            blocks: request.compress,
            wait: request.wait_end_of_query,
            held: Vec::new(),
            headers,
            version: version.to_owned(),
            tag,
            statistics: Statistics::default(),
        };
        (reply, Receiving { head: head_rx, chunks: chunks_rx })
    }

    /// Says in which format the result comes.
    pub fn set_format(&mut self, format: &str) {
        self.headers.push(("X-ClickHouse-Format", format.to_owned()));
        self.headers.push(("Content-Type", content_type(format).to_owned()));
    }

    pub fn add_statistics(&mut self, more: Statistics) {
        self.statistics.add(more);
    }

    /// Takes the next bytes of the result.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.chunks.is_closed() {
            return Err(Gone);
        }
        if self.head.is_some() && (self.wait || self.held.len() + bytes.len() <= HOLD_BYTES) {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.send_head(200, None)?;
        self.encode(&held)?;
        self.encode(bytes)?;
        let encoded = self.encoder.drain().map_err(|_| Gone)?;
        self.send(encoded)
    }

    fn encode(&mut self, plain: &[u8]) -> Result<(), Gone> {
        let writer = self.encoder.writer();
        if self.blocks { write_blocks(plain, writer) } else { writer.write_all(plain) }.map_err(|_| Gone)
    }

    fn send(&self, encoded: Vec<u8>) -> Result<(), Gone> {
        if encoded.is_empty() {
            return Ok(());
        }
        self.push(Ok(encoded.into()))
    }

    fn push(&self, chunk: Chunk) -> Result<(), Gone> {
        let sent = self.runtime.block_on(async { tokio::time::timeout(STALLED, self.chunks.send(chunk)).await });
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Gone) }
    }

    fn send_head(&mut self, status: u16, whole: Option<Bytes>) -> Result<(), Gone> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let mut headers = std::mem::take(&mut self.headers);
        headers.push(("X-ClickHouse-Summary", summary(&self.statistics)));
        if let Some(encoding) = self.encoding {
            headers.push(("Content-Encoding", encoding.to_owned()));
        }
        head.send(Head { status, headers, whole }).map_err(|_| Gone)
    }

    /// Ends a response that went well.
    pub fn finish(mut self) -> Result<(), Gone> {
        let held = std::mem::take(&mut self.held);
        self.encode(&held)?;
        let encoder = std::mem::replace(&mut self.encoder, Encoder::Plain(Vec::new()));
        let encoded = encoder.finish().map_err(|_| Gone)?;
        if self.head.is_some() { self.send_head(200, Some(encoded.into())) } else { self.send(encoded) }
    }

    /// Ends a response with an error: as the whole response while that is possible, else inside the body.
    pub fn fail(mut self, error: &EngineError) {
        let text = format!("{} (version {})\n", error.message, self.version);
        if self.head.is_some() {
            // An error is never compressed nor framed: clients read it as it is.
            self.encoding = None;
            self.headers.retain(|(name, _)| *name != "Content-Type" && *name != "X-ClickHouse-Format");
            self.headers.push(("Content-Type", "text/plain; charset=UTF-8".to_owned()));
            self.headers.push(("X-ClickHouse-Exception-Code", error.code.to_string()));
            let _ = self.send_head(error.http_status(), Some(text.into()));
            return;
        }
        let tag = &self.tag;
        let length = text.len();
        let marked = format!("\r\n__exception__\r\n{tag}\r\n{text}{length} {tag}\r\n__exception__\r\n");
        let sent = self.encode(marked.as_bytes()).and_then(|()| {
            let encoder = std::mem::replace(&mut self.encoder, Encoder::Plain(Vec::new()));
            self.send(encoder.finish().map_err(|_| Gone)?)
        });
        if sent.is_ok() {
            let _ = self.push(Err(io::Error::other("the query failed while its result was being sent")));
        }
    }
}

fn summary(s: &Statistics) -> String {
    format!(
        "{{\"read_rows\":\"{}\",\"read_bytes\":\"{}\",\"written_rows\":\"{}\",\"written_bytes\":\"{}\",\
         \"total_rows_to_read\":\"0\",\"result_rows\":\"{}\",\"result_bytes\":\"0\",\"elapsed_ns\":\"{}\"}}",
        s.read_rows,
        s.read_bytes,
        s.written_rows,
        s.written_bytes,
        s.result_rows,
        (s.elapsed_s * 1e9) as u64
    )
}

/// The media type that ClickHouse sends with an output format.
fn content_type(format: &str) -> &'static str {
    match format {
        "JSON"
        | "JSONCompact"
        | "JSONStrings"
        | "JSONCompactStrings"
        | "JSONColumns"
        | "JSONCompactColumns"
        | "JSONColumnsWithMetadata"
        | "JSONObjectEachRow" => "application/json; charset=UTF-8",
        f if f.starts_with("JSON") || f == "NDJSON" => "application/x-ndjson; charset=UTF-8",
        f if f.starts_with("CSVWithNames") => "text/csv; charset=UTF-8; header=present",
        f if f.starts_with("CSV") => "text/csv; charset=UTF-8; header=absent",
        f if f.starts_with("TabSeparated") || f.starts_with("TSV") => "text/tab-separated-values; charset=UTF-8",
        "XML" => "application/xml; charset=UTF-8",
        "RowBinary"
        | "RowBinaryWithNames"
        | "RowBinaryWithNamesAndTypes"
        | "Native"
        | "Parquet"
        | "Arrow"
        | "ArrowStream"
        | "ORC"
        | "Avro"
        | "MsgPack"
        | "BSONEachRow"
        | "Protobuf"
        | "CapnProto"
        | "Npy" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}
