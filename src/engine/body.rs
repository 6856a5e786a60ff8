//! A request's body as a blocking reader on the request's own thread, with its compression undone and its size bounded.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc::Receiver;

use super::blocks::BlockReader;
use super::error::{EngineError, code};
use super::request::Request;

/// Why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// More bytes than the server takes.
    TooLarge { limit: u64 },
    /// The client went away, or broke the HTTP framing.
    Lost,
}

/// Chunks of a body on their way from the HTTP worker to the request's thread.
pub type Chunks = Receiver<Result<Bytes, BodyError>>;

/// Reads what the HTTP worker sends, blocking while it is behind.
struct ChunkReader {
    chunks: Chunks,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.current.has_remaining() {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => return Err(io::Error::other(BodyIoError(error))),
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.current.remaining());
        self.current.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

#[derive(Debug)]
struct BodyIoError(BodyError);

impl std::fmt::Display for BodyIoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for BodyIoError {}

/// The body of a request, plain, whatever it was on the wire.
pub struct Body {
    reader: Box<dyn Read>,
    limit: u64,
    left: u64,
}

impl Body {
    /// Undoes `Content-Encoding`, then ClickHouse's block framing. `limit` bounds the plain bytes too.
    pub fn new(chunks: Chunks, request: &Request, limit: u64) -> Result<Self, EngineError> {
        let raw = ChunkReader { chunks, current: Bytes::new() };
        let decoded: Box<dyn Read> = match request.content_encoding.as_deref().map(str::trim).unwrap_or_default() {
            "" | "identity" => Box::new(raw),
            "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            "deflate" => Box::new(flate2::read::ZlibDecoder::new(raw)),
            "lz4" => Box::new(lz4_flex::frame::FrameDecoder::new(raw)),
            "zstd" => Box::new(zstd::Decoder::new(raw).map_err(EngineError::internal)?),
            other => {
                return Err(EngineError::new(
                    code::NOT_IMPLEMENTED,
                    format_args!(
                        "Unknown compression method in Content-Encoding: {}; this server reads gzip, deflate, zstd and lz4",
                        other.escape_default()
                    ),
                ));
            }
        };
        let reader = if request.decompress { Box::new(BlockReader::new(decoded)) } else { decoded };
        Ok(Self { reader, limit, left: limit })
    }

    /// Fills `out` as far as the body goes; 0 at the end.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, EngineError> {
        let mut got = 0;
        while got < out.len() {
            match self.reader.read(&mut out[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.explain(&e)),
            }
        }
        self.left = self.left.checked_sub(got as u64).ok_or_else(|| too_large(self.limit))?;
        Ok(got)
    }

    /// Appends at most `most` further bytes to `out`; tells whether the end was reached.
    pub fn read_some(&mut self, out: &mut Vec<u8>, most: usize) -> Result<bool, EngineError> {
        let start = out.len();
        out.resize(start + most, 0);
        let got = self.read(&mut out[start..])?;
        out.truncate(start + got);
        Ok(got < most)
    }

    /// Appends the whole rest to `out`.
    pub fn read_all(&mut self, out: &mut Vec<u8>) -> Result<(), EngineError> {
        while !self.read_some(out, 1 << 20)? {}
        Ok(())
    }

    fn explain(&self, error: &io::Error) -> EngineError {
        let own = error.get_ref().and_then(|e| e.downcast_ref::<BodyIoError>()).map(|e| e.0);
        match own {
            Some(BodyError::TooLarge { limit }) => too_large(limit),
            Some(BodyError::Lost) => {
                EngineError::new(code::INCORRECT_DATA, "the request's body broke off; nothing of it was used")
            }
            None if error.to_string().contains("Checksum") => EngineError::new(code::CHECKSUM_DOESNT_MATCH, error),
            None => EngineError::new(code::CANNOT_DECOMPRESS, format_args!("Cannot decompress the body: {error}")),
        }
    }
}

fn too_large(limit: u64) -> EngineError {
    EngineError::new(
        code::QUERY_IS_TOO_LARGE,
        format_args!("the request's body is larger than {limit} bytes; send less at once, or raise --max-body"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn body(pieces: Vec<Result<Bytes, BodyError>>, encoding: Option<&str>, limit: u64) -> Result<Vec<u8>, EngineError> {
        let (tx, rx) = tokio::sync::mpsc::channel(pieces.len() + 1);
        for piece in pieces {
            tx.try_send(piece).unwrap();
        }
        drop(tx);
        let request = Request { content_encoding: encoding.map(str::to_owned), ..Request::default() };
        let mut out = Vec::new();
        Body::new(rx, &request, limit)?.read_all(&mut out).map(|()| out)
    }

    #[test]
    fn every_encoding_is_undone_across_chunk_borders() {
        let plain = b"a line of text\n".repeat(10_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        for (name, data) in [
            ("identity", plain.clone()),
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("lz4", lz4.finish().unwrap()),
            ("zstd", zstd::encode_all(plain.as_slice(), 1).unwrap()),
        ] {
            let pieces = data.chunks(7).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            assert!(body(pieces, Some(name), 1 << 20).unwrap() == plain, "{name}");
        }
        assert_eq!(body(vec![], Some("br"), 9).unwrap_err().code, 48);
    }

    #[test]
    fn a_body_is_bounded_before_and_after_decompression() {
        let bomb = zstd::encode_all(std::io::repeat(b'x').take(5 << 20), 1).unwrap();
        let error = body(vec![Ok(Bytes::from(bomb))], Some("zstd"), 1 << 20).unwrap_err();
        assert_eq!((error.code, error.http_status()), (229, 413));
        let error = body(vec![Err(BodyError::TooLarge { limit: 5 })], None, 5).unwrap_err();
        assert_eq!(error.http_status(), 413);
    }

    #[test]
    fn a_broken_body_is_an_error() {
        let pieces = vec![Ok(Bytes::from_static(b"INSERT")), Err(BodyError::Lost)];
        assert_eq!(body(pieces, None, 100).unwrap_err().code, 117);
        assert_eq!(body(vec![Ok(Bytes::from_static(b"no gzip"))], Some("gzip"), 100).unwrap_err().code, 271);
    }
}
