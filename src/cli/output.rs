//! How results look: aligned columns for people, JSON for programs, progress on standard error.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Buffered standard output; flush it at the end, so that an error of the reader shows.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Prints one JSON document and a new line.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let mut out = stdout();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// `12,345,678`.
pub(crate) fn count(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0 { format!("-{out}") } else { out }
}

/// Bytes as text: printable UTF-8 as it is, everything else escaped, so that no record can write to the terminal.
pub(crate) fn safe_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&safe_text(chunk.valid()));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// A text without control characters and invisible direction marks.
pub(crate) fn safe_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// At most `width` characters, with an ellipsis where there were more.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_string(),
        Some(_) => {
            let keep = text.char_indices().nth(width.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}…", &text[..keep])
        }
    }
}

/// Rows in aligned columns under a header. A column of numbers alone is aligned to the right.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub fn new<S: AsRef<str>>(header: &[S]) -> Self {
        Self { header: header.iter().map(|h| h.as_ref().to_string()).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let layout = self.layout();
        layout.header(out, &self.header)?;
        for row in &self.rows {
            layout.line(out, row)?;
        }
        Ok(())
    }

    /// The widths that these rows need.
    pub fn layout(&self) -> Layout {
        let columns = self.header.len();
        let widths = (0..columns).map(|c| {
            let cells = self.rows.iter().filter_map(|r| r.get(c));
            cells.chain([&self.header[c]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        });
        let numeric = (0..columns).map(|c| {
            let mut cells =
                self.rows.iter().filter_map(|r| r.get(c)).filter(|cell| !matches!(cell.as_str(), "" | "–" | "NULL"));
            let number =
                |cell: &String| cell.chars().all(|ch| ch.is_ascii_digit() || matches!(ch, '.' | ',' | '-' | '%'));
            cells.clone().next().is_some() && cells.all(number)
        });
        Layout { widths: widths.collect(), right: numeric.collect() }
    }

    pub fn header(&self) -> &[String] {
        &self.header
    }

    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }
}

/// Widths and sides of the columns.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    widths: Vec<usize>,
    right: Vec<bool>,
}

impl Layout {
    pub fn header(&self, out: &mut impl Write, header: &[String]) -> io::Result<()> {
        self.line(out, header)?;
        let rules: Vec<String> = self.widths.iter().map(|w| "─".repeat(*w)).collect();
        self.line(out, &rules)
    }

    pub fn line(&self, out: &mut impl Write, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for (c, cell) in cells.iter().enumerate() {
            let width = self.widths.get(c).copied().unwrap_or(0);
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            if c > 0 {
                line.push_str("  ");
            }
            if self.right.get(c) == Some(&true) {
                line.push_str(&pad);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&pad);
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Progress of something that may take long: on a terminal a bar, once it has taken two seconds; elsewhere nothing.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: std::time::Instant,
}

/// What is over sooner shows no progress.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);

impl Progress {
    /// `total` is in the same unit as what is given to [`Progress::advance`], rows or records.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        // The template is a constant that is tried by every run on a terminal.
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {bar:30} {human_pos}/{human_len} ({per_sec}, {eta} left)")
        {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        Self { bar, started: std::time::Instant::now() }
    }

    pub fn advance(&self, by: u64) {
        if self.bar.is_hidden() && self.started.elapsed() > PROGRESS_AFTER && io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
        self.bar.inc(by);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(-1_234_567), "-1,234,567");
    }

    #[test]
    fn bytes_cannot_write_to_the_terminal() {
        assert_eq!(safe_bytes(b"a\x1b[31m\xff\n"), "a\\u{1b}[31m\\xff\\n");
        assert_eq!(safe_bytes("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(safe_text("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten("abcd", 3), "ab…");
    }

    #[test]
    fn numbers_stand_on_the_right() {
        let mut grid = Grid::new(&["name", "rows"]);
        grid.row(["a".into(), "1,000".into()]);
        grid.row(["bcd ".trim().into(), "7".into()]);
        let mut out = Vec::new();
        grid.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name   rows\n────  ─────\na     1,000\nbcd       7\n");
    }
}
