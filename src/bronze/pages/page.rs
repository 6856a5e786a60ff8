//! A column chunk in the making: finished pages, and the levels of the page at hand.

use std::io;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::hybrid::Runs;
use super::{PAGE_BYTES, PAGE_ROWS};
use crate::bronze::chunks::Chunks;

/// Level 1: the levels above cost more than they save.
const ZSTD_LEVEL: i32 = 1;

/// Whether a column's pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Zstd,
}

/// zstd's working memory, which takes longer to make than a page to compress; one for all columns of a file.
pub struct ZstdContext(zstd::bulk::Compressor<'static>);

impl ZstdContext {
    pub fn new() -> io::Result<Self> {
        zstd::bulk::Compressor::new(ZSTD_LEVEL).map(Self)
    }
}

/// The pages of one column of a row group.
pub struct Pages {
    column: ColumnDescPtr,
    codec: Codec,
    /// Finished data pages.
    data: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    /// Rows of the page at hand that have a value (1) or none (0).
    levels: Runs,
    rows: usize,
    nulls: usize,
    encodings: Vec<Encoding>,
    /// The page at hand before it is compressed.
    body: Vec<u8>,
}

/// A finished column chunk.
pub struct Chunk {
    bytes: Bytes,
    close: ColumnCloseResult,
}

/// A dictionary page: its values one behind the other, and how many there are.
pub struct Dictionary<'a> {
    pub values: &'a [u8],
    pub count: usize,
}

impl Pages {
    pub fn new(column: ColumnDescPtr, codec: Codec) -> Self {
        Self {
            column,
            codec,
            data: TrackedWrite::new(Vec::new()),
            uncompressed: 0,
            levels: Runs::default(),
            rows: 0,
            nulls: 0,
            encodings: vec![Encoding::RLE],
            body: Vec::new(),
        }
    }

    /// Counts rows into the page at hand, all with a value or all without.
    #[inline]
    pub fn add(&mut self, present: bool, rows: usize) {
        self.levels.push(present.into(), rows as u32);
        if !present {
            self.nulls += rows;
        }
    }

    pub fn nulls(&self) -> usize {
        self.nulls
    }

    /// Whether the page at hand should be flushed; it holds so many bytes of values.
    pub fn is_full(&self, value_bytes: usize) -> bool {
        self.levels.len() >= PAGE_ROWS || value_bytes >= PAGE_BYTES
    }

    /// Whether the page at hand has rows.
    pub fn is_begun(&self) -> bool {
        self.levels.len() > 0
    }

    /// Bytes of finished pages.
    pub fn bytes(&self) -> usize {
        self.data.bytes_written()
    }

    /// Bytes of memory, nearly.
    pub fn memory(&self) -> usize {
        self.data.inner().capacity() + self.levels.memory() + self.body.capacity()
    }

    /// Finishes the page at hand; `values` appends its values in the encoding that it returns.
    pub fn flush(&mut self, zstd: &mut ZstdContext, values: impl FnOnce(&mut Vec<u8>) -> Encoding) -> Result<()> {
        let rows = self.levels.len();
        self.body.clear();
        self.levels.encode_levels(&mut self.body, 1);
        let encoding = values(&mut self.body);
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        let bytes = compress(self.codec, zstd, &self.body)?;
        self.uncompressed += write_data_page(&mut self.data, bytes, self.body.len(), rows, encoding)?;
        self.rows += rows;
        self.levels.clear();
        Ok(())
    }

    /// The finished chunk; its last page has been flushed.
    pub fn close(
        self,
        zstd: &mut ZstdContext,
        dictionary: Option<Dictionary<'_>>,
        statistics: Option<Statistics>,
    ) -> Result<Chunk> {
        let Self { column, codec, data, mut uncompressed, rows, mut encodings, .. } = self;
        let mut first = TrackedWrite::new(Vec::new());
        if let Some(Dictionary { values, count }) = dictionary {
            let page = Page::DictionaryPage {
                buf: compress(codec, zstd, values)?.into(),
                num_values: count as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let spec = SerializedPageWriter::new(&mut first).write_page(CompressedPage::new(page, values.len()))?;
            uncompressed += spec.uncompressed_size;
            encodings.push(Encoding::PLAIN);
        }
        let pages = Finished { dictionary: first.into_inner()?, data: data.into_inner()?, uncompressed, rows };
        Chunk::new(column, codec, pages, encodings, statistics)
    }
}

/// All pages of a chunk.
pub struct Finished {
    pub dictionary: Vec<u8>,
    pub data: Vec<u8>,
    /// Bytes of all pages before they were compressed, with their heads.
    pub uncompressed: usize,
    pub rows: usize,
}

impl Chunk {
    pub fn new(
        column: ColumnDescPtr,
        codec: Codec,
        pages: Finished,
        encodings: Vec<Encoding>,
        statistics: Option<Statistics>,
    ) -> Result<Self> {
        let Finished { dictionary: mut bytes, data, uncompressed, rows } = pages;
        let dictionary = bytes.len();
        if bytes.is_empty() {
            bytes = data;
        } else {
            bytes.extend_from_slice(&data);
        }
        let compression = match codec {
            Codec::None => Compression::UNCOMPRESSED,
            Codec::Zstd => Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?),
        };
        let mut metadata = ColumnChunkMetaData::builder(column)
            .set_encodings(encodings)
            .set_compression(compression)
            .set_num_values(rows as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_data_page_offset(dictionary as i64)
            .set_dictionary_page_offset((dictionary > 0).then_some(0));
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok(Self { bytes: bytes.into(), close })
    }

    /// Puts the chunk behind the columns that the row group has already.
    pub fn append_to(self, group: &mut SerializedRowGroupWriter<'_, Chunks>) -> Result<()> {
        group.append_column(&self.bytes, self.close)
    }
}

/// Writes a data page behind the others; its bytes before they were compressed, with its head. `bytes`: the body as it is
/// written, `uncompressed`: its length before it was compressed.
pub fn write_data_page(
    data: &mut TrackedWrite<Vec<u8>>,
    bytes: Vec<u8>,
    uncompressed: usize,
    rows: usize,
    encoding: Encoding,
) -> Result<usize> {
    let page = Page::DataPage {
        buf: bytes.into(),
        num_values: rows as u32,
        encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    Ok(SerializedPageWriter::new(data).write_page(CompressedPage::new(page, uncompressed))?.uncompressed_size)
}

fn compress(codec: Codec, zstd: &mut ZstdContext, bytes: &[u8]) -> Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Zstd => zstd.0.compress(bytes).map_err(|e| ParquetError::External(Box::new(e))),
    }
}
