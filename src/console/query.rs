//! Queries of the SQL editor: screened, read-only, bounded in rows, memory and time, and cancelled on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use super::tables::Tables;
use crate::cli::clickhouse::{Http, response_lines};
use crate::cli::lake::Lake;
use crate::config::Server;
use crate::engine::lexer::{Kind, Lexer};

/// Rows that a page shows, and that one answer or download holds at most.
pub const PAGE_ROWS: usize = 200;
pub const ROWS_MAX: usize = 100_000;
/// Bytes of an answer; what is larger belongs into a file.
const BYTES_MAX: usize = 32 << 20;
/// A query that takes longer is ended.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Bytes that a query on Delta may hold before it spills to disk.
const MEMORY_BYTES: usize = 128 << 20;
/// Queries at the same time; others wait.
const AT_ONCE: usize = 2;
/// Characters of a statement: it goes to ClickHouse in an address, which makes it read-only there.
const CHARACTERS_MAX: usize = 16_000;

/// What answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum On {
    #[default]
    Delta,
    Clickhouse,
}

impl On {
    pub fn as_str(self) -> &'static str {
        match self {
            On::Delta => "delta",
            On::Clickhouse => "clickhouse",
        }
    }
}

/// The rows of an answer, as texts.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Answer {
    pub columns: Vec<String>,
    /// Values as text; null where there is none.
    pub rows: Vec<Vec<Option<String>>>,
    /// Whether there are more rows than were asked for.
    pub more: bool,
    pub seconds: f64,
}

/// A query under way.
#[derive(Debug, Clone)]
pub struct Running {
    pub id: String,
    pub user: String,
    pub sql: String,
    pub since: Instant,
    /// It has its turn, and what it has brought so far.
    progress: Arc<Progress>,
    cancel: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Progress {
    begun: AtomicBool,
    rows: AtomicUsize,
}

/// How a query stands, for whoever waits for it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Standing {
    pub id: String,
    pub sql: String,
    pub seconds: f64,
    /// Others have their turn first.
    pub waits: bool,
    /// Rows that came so far.
    pub rows: usize,
}

impl Running {
    pub fn standing(&self) -> Standing {
        Standing {
            id: self.id.clone(),
            sql: self.sql.clone(),
            seconds: self.since.elapsed().as_secs_f64(),
            waits: !self.progress.begun.load(Ordering::Relaxed),
            rows: self.progress.rows.load(Ordering::Relaxed),
        }
    }
}

/// A name that a caller may give a query, to ask how it stands and to cancel it.
fn own_id(id: &str) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    ((8..=40).contains(&id.len()) && id.chars().all(fine)).then_some(id)
}

/// Runs queries.
#[derive(Clone)]
pub struct Queries {
    server: Arc<Server>,
    tables: Tables,
    room: Arc<Semaphore>,
    running: Arc<Mutex<HashMap<String, Running>>>,
}

impl Queries {
    pub fn new(server: Arc<Server>, tables: Tables) -> Self {
        Self { server, tables, room: Arc::new(Semaphore::new(AT_ONCE)), running: Arc::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Running>) -> T) -> T {
        work(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A user's queries under way.
    pub fn running(&self, user: &str) -> Vec<Running> {
        self.with(|running| running.values().filter(|query| query.user == user).cloned().collect())
    }

    /// Ends a user's query; false when it is not there.
    pub fn cancel(&self, user: &str, id: &str) -> bool {
        let found = self.with(|running| running.get(id).filter(|query| query.user == user).cloned());
        found.inspect(|query| query.cancel.notify_one()).is_some()
    }

    /// Runs one statement that reads, under a name of the caller's where one is given; at most `limit` rows. On the
    /// desk's threads.
    pub async fn run(&self, user: &str, id: Option<&str>, on: On, sql: &str, limit: usize) -> anyhow::Result<Answer> {
        screen(on, sql)?;
        let id = match id.filter(|id| !id.is_empty()) {
            None => uuid::Uuid::new_v4().to_string(),
            Some(id) => own_id(id).context("a query's id is 8 to 40 letters, digits and dashes")?.to_owned(),
        };
        let progress = Arc::<Progress>::default();
        let query = Running {
            id: id.clone(),
            user: user.to_owned(),
            sql: sql.to_owned(),
            since: Instant::now(),
            progress: progress.clone(),
            cancel: Arc::default(),
        };
        let cancel = query.cancel.clone();
        self.with(|running| match running.contains_key(&id) {
            true => Err(anyhow::anyhow!("a query of this id is under way; wait for its end or cancel it")),
            false => Ok(running.insert(id.clone(), query)),
        })?;
        let listed = Listed { queries: self.clone(), id };
        let limit = limit.clamp(1, ROWS_MAX);
        let work = async {
            let _room = self.room.acquire().await.context("the console is stopping")?;
            progress.begun.store(true, Ordering::Relaxed);
            let begun = Instant::now();
            let mut answer = match on {
                On::Delta => delta(&self.server, &self.tables, sql, limit, &progress).await?,
                On::Clickhouse => clickhouse(&self.server, sql, limit, &progress).await?,
            };
            answer.seconds = begun.elapsed().as_secs_f64();
            Ok(answer)
        };
        let done = tokio::select! {
            done = work => done,
            () = cancel.notified() => Err(anyhow::anyhow!("the query was cancelled")),
            () = tokio::time::sleep(LIMIT) => {
                Err(anyhow::anyhow!("the query took longer than {} s; ask for less, such as one date", LIMIT.as_secs()))
            }
        };
        drop(listed);
        done
    }
}

/// A query is listed as long as somebody waits for it.
struct Listed {
    queries: Queries,
    id: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.queries.with(|running| running.remove(&self.id));
    }
}

/// How a statement that only reads begins.
const READING: [&str; 8] = ["select", "with", "show", "describe", "desc", "explain", "exists", "values"];
/// Functions of ClickHouse that reach outside its tables: files, other servers, commands, the server's own settings.
pub const OUTSIDE: [&str; 48] = [
    "file",
    "filecluster",
    "url",
    "urlcluster",
    "s3",
    "s3cluster",
    "gcs",
    "oss",
    "cosn",
    "hdfs",
    "hdfscluster",
    "azureblobstorage",
    "azureblobstoragecluster",
    "deltalake",
    "deltalakecluster",
    "deltalakelocal",
    "deltalakes3",
    "deltalakeazure",
    "hudi",
    "hudicluster",
    "iceberg",
    "iceberglocal",
    "icebergs3",
    "icebergazure",
    "iceberghdfs",
    "icebergcluster",
    "icebergs3cluster",
    "paimon",
    "paimons3",
    "paimonlocal",
    "mysql",
    "postgresql",
    "sqlite",
    "mongodb",
    "redis",
    "odbc",
    "jdbc",
    "executable",
    "remote",
    "remotesecure",
    "cluster",
    "clusterallreplicas",
    "python",
    "disk",
    "getserversetting",
    "catboostevaluate",
    "ytsaurus",
    "arrowflight",
];

/// Refuses what is not one statement that reads tables.
fn screen(on: On, sql: &str) -> anyhow::Result<()> {
    if sql.chars().count() > CHARACTERS_MAX {
        bail!("a statement has at most {CHARACTERS_MAX} characters");
    }
    let tokens: Vec<_> = Lexer::new(sql).collect();
    let Some(first) = tokens.first() else { bail!("there is no statement; try `show tables`") };
    if tokens.iter().any(|token| token.kind == Kind::Unclosed) {
        bail!("a text, a name or a comment does not end");
    }
    let end = tokens.iter().position(|token| token.is_mark(';')).unwrap_or(tokens.len());
    if tokens.iter().skip(end).any(|token| !token.is_mark(';')) {
        bail!("one statement at a time: this is more than one");
    }
    let opens = tokens.iter().find(|token| !token.is_mark('(')).unwrap_or(first);
    if !READING.iter().any(|word| opens.is(word)) {
        bail!("this only reads: a statement begins with select, with, show, describe or explain");
    }
    if on == On::Delta {
        // The session knows tables by name alone, and refuses everything that writes.
        return Ok(());
    }
    if tokens.windows(2).any(|pair| pair[0].is("into") && pair[1].is("outfile")) {
        bail!("this only reads: `into outfile` writes a file");
    }
    for pair in tokens.windows(2) {
        let name = pair[0].text.trim_matches(['`', '"']).to_lowercase().replace('_', "");
        if pair[0].is_name() && pair[1].is_mark('(') && OUTSIDE.contains(&name.as_str()) {
            bail!("`{}` reaches outside the tables; the console reads tables alone", pair[0].text);
        }
    }
    Ok(())
}

async fn delta(
    server: &Server,
    tables: &Tables,
    sql: &str,
    limit: usize,
    progress: &Progress,
) -> anyhow::Result<Answer> {
    let lake = Lake::kept_open(&server.lakehouse.uri, MEMORY_BYTES, Arc::new(tables.clone()))?;
    let frame = lake.sql(sql.trim().trim_end_matches(';')).await?;
    let mut batches = frame.execute_stream().await.map_err(|e| lake.explain(e))?;
    let columns: Vec<String> = batches.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut answer = Answer { columns, rows: Vec::new(), more: false, seconds: 0.0 };
    let options = FormatOptions::default().with_display_error(true);
    let mut bytes = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|e| lake.explain(e))?;
        let formatters: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            if answer.rows.len() == limit || bytes > BYTES_MAX {
                answer.more = true;
                return Ok(answer);
            }
            let cells: Vec<Option<String>> = batch
                .columns()
                .iter()
                .zip(&formatters)
                .map(|(column, formatter)| (!column.is_null(row)).then(|| formatter.value(row).to_string()))
                .collect();
            bytes += cells.iter().flatten().map(String::len).sum::<usize>();
            answer.rows.push(cells);
            progress.rows.store(answer.rows.len(), Ordering::Relaxed);
        }
    }
    Ok(answer)
}

async fn clickhouse(server: &Server, sql: &str, limit: usize, progress: &Progress) -> anyhow::Result<Answer> {
    let http = Http::new(&server.clickhouse)?;
    let response = http.read(sql.trim().trim_end_matches(';'), "JSONCompactStringsEachRowWithNames", LIMIT).await?;
    let named = response.headers().get("x-clickhouse-format").and_then(|f| f.to_str().ok());
    if named.is_some_and(|format| format != "JSONCompactStringsEachRowWithNames") {
        bail!("leave `format` out: the console shows rows");
    }
    let mut lines = response_lines(response);
    let mut answer = Answer { columns: Vec::new(), rows: Vec::new(), more: false, seconds: 0.0 };
    let Some(names) = lines.next().await.transpose()? else { return Ok(answer) };
    answer.columns = serde_json::from_str(&names).context("ClickHouse's answer has no names")?;
    let mut bytes = 0;
    while let Some(line) = lines.next().await {
        if answer.rows.len() == limit || bytes > BYTES_MAX {
            answer.more = true;
            break;
        }
        let line = line?;
        bytes += line.len();
        answer.rows.push(serde_json::from_str(&line).context("ClickHouse's answer is no row")?);
        progress.rows.store(answer.rows.len(), Ordering::Relaxed);
    }
    Ok(answer)
}

/// An answer as CSV. A cell that a spreadsheet would take for a formula is kept from being one.
pub fn csv(answer: &Answer) -> String {
    let cell = |text: &str| {
        let formula =
            text.starts_with(['=', '+', '@', '\t', '\r']) || (text.starts_with('-') && text.parse::<f64>().is_err());
        let text = if formula { format!("'{text}") } else { text.to_owned() };
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    let mut out = line(answer.columns.iter().map(|name| cell(name)).collect());
    for row in &answer.rows {
        out.push_str(&line(row.iter().map(|value| value.as_deref().map(cell).unwrap_or_default()).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_that_reads_tables_passes() {
        for sql in [
            "select 1",
            "SELECT 1;",
            "with a as (select 1) select * from a",
            "(select 1) union all (select 2)",
            "show tables",
            "-- a comment\nselect ';' as semicolon",
            "explain select 1",
            "select file from t",
            "select replace(a, 'file(', '') from t",
        ] {
            for on in [On::Delta, On::Clickhouse] {
                screen(on, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
            }
        }
    }

    #[test]
    fn what_writes_or_reaches_outside_is_refused() {
        for sql in [
            "",
            ";",
            "-- nothing",
            "insert into t values (1)",
            "drop table t",
            "select 1; drop table t",
            "set readonly = 0",
            "create table t (a int)",
            "copy t to '/tmp/x'",
            "system shutdown",
            "use system",
            "select 'open",
            "/* x */ delete from t",
            "optimize table t",
            "attach table t",
            "backup table t to disk('x')",
        ] {
            for on in [On::Delta, On::Clickhouse] {
                assert!(screen(on, sql).is_err(), "{sql}");
            }
        }
        for sql in [
            "select * from file('/etc/passwd')",
            "select * from FILE ('/etc/passwd')",
            "select * from `file`('/etc/passwd')",
            "select * from \"url\"('http://x')",
            "select * from url/**/('http://x')",
            "select * from s3('x')",
            "select file('x')",
            "select * from remote('x', system.one)",
            "select * from executable('id')",
            "select 1 into outfile '/tmp/x'",
            "select * from generate_series(1, 2), mysql('h', 'd', 't', 'u', 'p')",
        ] {
            assert!(screen(On::Clickhouse, sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn names_of_queries_are_harmless() {
        assert_eq!(own_id("2f1c6d8e-8d3f-4c8a-9b1e-0a5f2c3d4e5f"), Some("2f1c6d8e-8d3f-4c8a-9b1e-0a5f2c3d4e5f"));
        for bad in ["", "short", "a/b/c/d/e", "<script>alert(1)", &"x".repeat(41)] {
            assert_eq!(own_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn csv_is_quoted_and_runs_nothing() {
        let answer = Answer {
            columns: vec!["a".into(), "b,c".into()],
            rows: vec![vec![Some("=cmd()".into()), None], vec![Some("-1.5".into()), Some("say \"hi\"\n".into())]],
            more: false,
            seconds: 0.0,
        };
        assert_eq!(csv(&answer), "a,\"b,c\"\r\n'=cmd(),\r\n-1.5,\"say \"\"hi\"\"\n\"\r\n");
    }
}
