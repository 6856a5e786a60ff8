//! Rows on their way out: a table, CSV, JSON lines or a Parquet file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::writer::{LineDelimited, Writer as JsonWriter, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::Format;
use crate::cli::output::{self, Grid, Layout};

/// Where rows go and how they look.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub format: Format,
    /// A file instead of standard output.
    pub file: Option<PathBuf>,
    /// Rows that a table shows at most.
    pub max_rows: usize,
    /// Whether standard output is a terminal: long values are shortened.
    pub terminal: bool,
    /// A row as lines of its own, one a column.
    pub vertical: bool,
    /// Print rows and time to standard error after each statement.
    pub timings: bool,
}

/// What was written.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Written {
    /// None where rows could not be counted.
    pub rows: Option<u64>,
    /// Whether there were more rows than were shown.
    pub more: bool,
    /// Whether long values were shortened.
    pub shortened: bool,
}

/// Characters of a value that a terminal is shown.
const TERMINAL_WIDTH: usize = 100;
/// Rows that decide the widths of a table's columns; the rest follows as it comes.
const LAYOUT_ROWS: usize = 1000;

/// A file that gets its name once it is whole, or standard output.
struct Sink {
    out: Box<dyn Write + Send>,
    rename: Option<(PathBuf, PathBuf)>,
}

impl Sink {
    fn open(target: &Target) -> anyhow::Result<Self> {
        match &target.file {
            None => Ok(Self { out: Box::new(BufWriter::new(io::stdout())), rename: None }),
            Some(path) => {
                let (file, part) = part_file(path)?;
                Ok(Self { out: Box::new(BufWriter::new(file)), rename: Some((part, path.clone())) })
            }
        }
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush()?;
        drop(self.out);
        rename(self.rename)
    }
}

fn part_file(path: &Path) -> anyhow::Result<(File, PathBuf)> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part).with_context(|| format!("{} cannot be written", part.display()))?;
    Ok((file, part))
}

fn rename(names: Option<(PathBuf, PathBuf)>) -> anyhow::Result<()> {
    if let Some((part, path)) = names {
        std::fs::rename(&part, &path).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Writes record batches.
pub(super) enum RowWriter {
    Table(TableWriter),
    Csv { sink: OwnedSink, rows: u64 },
    Json { writer: Box<JsonWriter<OwnedSink, LineDelimited>>, rows: u64 },
    Parquet { writer: Box<ArrowWriter<File>>, names: (PathBuf, PathBuf), rows: u64 },
}

/// A [`Sink`] that writers of other crates can own.
pub(super) struct OwnedSink(Option<Sink>);

impl Write for OwnedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(bytes.len()), |s| s.out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |s| s.out.flush())
    }
}

impl RowWriter {
    pub fn new(schema: SchemaRef, target: &Target) -> anyhow::Result<Self> {
        Ok(match target.format {
            Format::Table => {
                let names = schema.fields().iter().map(|f| f.name().clone()).collect();
                Self::Table(TableWriter::new(names, target)?)
            }
            Format::Csv => {
                let mut sink = Sink::open(target)?;
                let header: Vec<String> = schema.fields().iter().map(|f| csv_cell(f.name())).collect();
                writeln!(sink.out, "{}", header.join(","))?;
                Self::Csv { sink: OwnedSink(Some(sink)), rows: 0 }
            }
            Format::Json => {
                let sink = OwnedSink(Some(Sink::open(target)?));
                let writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(sink);
                Self::Json { writer: Box::new(writer), rows: 0 }
            }
            Format::Parquet => {
                // Checked with the arguments: Parquet has a file.
                let path = target.file.clone().context("Parquet needs --output FILE")?;
                let (file, part) = part_file(&path)?;
                let level = ZstdLevel::try_new(3).context("zstd level")?;
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
                let writer = ArrowWriter::try_new(file, schema, Some(properties))?;
                Self::Parquet { writer: Box::new(writer), names: (part, path), rows: 0 }
            }
        })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let n = batch.num_rows() as u64;
        match self {
            Self::Table(table) => {
                let cells = Cells::new(batch, " ")?;
                for row in 0..batch.num_rows() {
                    let row =
                        (0..batch.num_columns()).map(|c| cells.text(c, row)).collect::<anyhow::Result<Vec<_>>>()?;
                    if !table.row(row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".into())).collect())? {
                        break;
                    }
                }
            }
            Self::Csv { sink, rows } => {
                let cells = Cells::new(batch, "T")?;
                for row in 0..batch.num_rows() {
                    for column in 0..batch.num_columns() {
                        if column > 0 {
                            sink.write_all(b",")?;
                        }
                        if let Some(text) = cells.text(column, row)? {
                            sink.write_all(csv_cell(&text).as_bytes())?;
                        }
                    }
                    sink.write_all(b"\n")?;
                }
                *rows += n;
            }
            Self::Json { writer, rows } => {
                writer.write(batch)?;
                *rows += n;
            }
            Self::Parquet { writer, rows, .. } => {
                writer.write(batch)?;
                *rows += n;
            }
        }
        Ok(())
    }

    pub fn finish(self) -> anyhow::Result<Written> {
        let rows = match self {
            Self::Table(table) => return table.finish(),
            Self::Csv { sink, rows } => {
                sink.0.map_or(Ok(()), Sink::finish)?;
                rows
            }
            Self::Json { mut writer, rows } => {
                writer.finish()?;
                writer.into_inner().0.map_or(Ok(()), Sink::finish)?;
                rows
            }
            Self::Parquet { writer, names, rows } => {
                writer.close()?;
                rename(Some(names))?;
                rows
            }
        };
        Ok(Written { rows: Some(rows), ..Written::default() })
    }
}

/// A batch's values as texts.
struct Cells<'a> {
    columns: Vec<(&'a ArrayRef, ArrayFormatter<'a>)>,
}

impl<'a> Cells<'a> {
    /// `between` stands between the date and the time of a timestamp.
    fn new(batch: &'a RecordBatch, between: &str) -> anyhow::Result<Self> {
        let options = match between {
            "T" => FormatOptions::new().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ")),
            _ => FormatOptions::new()
                .with_null("NULL")
                .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f"))
                .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f")),
        };
        let columns = batch.columns().iter().map(|c| Ok((c, ArrayFormatter::try_new(c, &options)?)));
        Ok(Self { columns: columns.collect::<anyhow::Result<_>>()? })
    }

    /// None where the value is null.
    fn text(&self, column: usize, row: usize) -> anyhow::Result<Option<String>> {
        let (array, formatter) = &self.columns[column];
        if array.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match array.data_type() {
            DataType::Binary => output::safe_bytes(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => output::safe_bytes(array.as_binary::<i64>().value(row)),
            DataType::BinaryView => output::safe_bytes(array.as_binary_view().value(row)),
            _ => formatter.value(row).try_to_string()?,
        }))
    }
}

fn csv_cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

/// Prints rows as a table: the first rows decide the widths, the rest streams.
pub(super) struct TableWriter {
    sink: Sink,
    grid: Grid,
    layout: Option<Layout>,
    target: Target,
    rows: usize,
    written: Written,
}

impl TableWriter {
    pub fn new(names: Vec<String>, target: &Target) -> anyhow::Result<Self> {
        let sink = Sink::open(target)?;
        let names: Vec<String> = names.iter().map(|n| output::safe_text(n)).collect();
        Ok(Self {
            sink,
            grid: Grid::new(&names),
            layout: None,
            target: target.clone(),
            rows: 0,
            written: Written::default(),
        })
    }

    /// Adds a row; false once there are as many as shall be shown.
    pub fn row(&mut self, cells: Vec<String>) -> anyhow::Result<bool> {
        if self.rows == self.target.max_rows {
            self.written.more = true;
            return Ok(false);
        }
        let cells = cells.into_iter().map(|cell| self.cell(&cell)).collect::<Vec<_>>();
        self.rows += 1;
        if self.target.vertical {
            writeln!(self.sink.out, "─ row {} ─", self.rows)?;
            let mut names = Grid::new(&["column", "value"]);
            for (name, cell) in self.grid.header().iter().zip(&cells) {
                names.row([name.clone(), cell.clone()]);
            }
            let layout = names.layout();
            for row in names.rows() {
                layout.line(&mut self.sink.out, row)?;
            }
            return Ok(true);
        }
        match &self.layout {
            Some(layout) => layout.line(&mut self.sink.out, &cells)?,
            None => {
                self.grid.row(cells);
                if self.rows == LAYOUT_ROWS {
                    self.begin()?;
                }
            }
        }
        Ok(true)
    }

    fn cell(&mut self, text: &str) -> String {
        let text = output::safe_text(text);
        if !self.target.terminal || self.target.vertical {
            return text;
        }
        let short = output::shorten(&text, TERMINAL_WIDTH);
        self.written.shortened |= short.len() < text.len();
        short
    }

    fn begin(&mut self) -> io::Result<()> {
        self.grid.write(&mut self.sink.out)?;
        self.layout = Some(self.grid.layout());
        Ok(())
    }

    pub fn finish(mut self) -> anyhow::Result<Written> {
        if self.layout.is_none() && !self.target.vertical {
            self.begin()?;
        }
        self.sink.finish()?;
        self.written.rows = Some(self.rows as u64);
        Ok(self.written)
    }
}

/// Copies an answer's bytes.
pub(super) async fn copy(response: reqwest::Response, target: &Target) -> anyhow::Result<Written> {
    let mut sink = Sink::open(target)?;
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        sink.out.write_all(&chunk.context("ClickHouse's answer broke off")?)?;
    }
    sink.finish()?;
    Ok(Written::default())
}
