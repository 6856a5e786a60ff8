//! The two engines behind one face: run a statement, show its rows, say what there is to complete.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures::StreamExt;

use super::Format;
use super::render::{self, RowWriter, Target, Written};
use crate::cli::clickhouse::{Http, response_lines};
use crate::cli::lake::Lake;
use crate::cli::output;
use crate::config::ClickHouse;

/// What runs statements.
pub(super) enum Engine {
    Delta(Lake),
    ClickHouse(Http),
}

impl Engine {
    pub fn delta(lakehouse: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self::Delta(Lake::open(lakehouse)?))
    }

    pub fn clickhouse(config: &ClickHouse) -> anyhow::Result<Self> {
        Ok(Self::ClickHouse(Http::new(config)?))
    }

    /// The prompt of the shell.
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Delta(_) => "delta",
            Engine::ClickHouse(_) => "clickhouse",
        }
    }

    /// Where it runs, for the shell's first line.
    pub fn place(&self) -> String {
        match self {
            Engine::Delta(lake) => match &lake.tables()[..] {
                [] => "the Delta tables (there are none yet)".into(),
                tables => format!("the Delta tables {}", tables.join(", ")),
            },
            Engine::ClickHouse(http) => format!("ClickHouse at {}", http.server()),
        }
    }

    /// Runs one statement and prints its rows.
    pub async fn run(&self, statement: &str, target: &Target) -> anyhow::Result<()> {
        let started = Instant::now();
        let written = match self {
            Engine::Delta(lake) => delta(lake, statement, target).await?,
            Engine::ClickHouse(http) => clickhouse(http, statement, target).await?,
        };
        if target.timings {
            let rows = match written.rows {
                Some(1) => "1 row".to_string(),
                Some(n) => format!("{} rows", output::count(n as i128)),
                None => "done".to_string(),
            };
            eprintln!("{rows} ({:.3} s)", started.elapsed().as_secs_f64());
        }
        if written.more {
            eprintln!(
                "only the first {} rows are shown; --max-rows 0 shows all, --output FILE keeps them",
                output::count(target.max_rows as i128)
            );
        }
        if written.shortened {
            eprintln!("long values are shortened; --format csv shows them whole");
        }
        Ok(())
    }

    /// What there is: tables, or the columns of one.
    pub async fn describe(&self, table: Option<&str>, target: &Target) -> anyhow::Result<()> {
        let statement = match (self, table) {
            (Engine::Delta(_), None) => {
                "select table_schema as schema, table_name as name from information_schema.tables \
                 where table_schema <> 'information_schema' order by 1, 2"
                    .to_string()
            }
            (Engine::Delta(_), Some(table)) => format!("describe {table}"),
            (Engine::ClickHouse(_), None) => "select database, name, engine from system.tables \
                 where database not in ('system', 'information_schema', 'INFORMATION_SCHEMA') order by 1, 2"
                .to_string(),
            (Engine::ClickHouse(_), Some(table)) => format!("describe table {table}"),
        };
        self.run(&statement, target).await
    }

    /// Words to complete: tables and columns.
    pub async fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        match self {
            Engine::Delta(lake) => {
                for table in lake.tables() {
                    if let Ok(columns) = lake.columns(&table).await {
                        words.extend(columns.into_iter().map(|(name, _)| name));
                    }
                    words.push(table);
                }
            }
            Engine::ClickHouse(http) => {
                let sql = "select concat(database, '.', table), name from system.columns \
                           where database not in ('system', 'information_schema', 'INFORMATION_SCHEMA')";
                for row in http.rows(sql).await.unwrap_or_default() {
                    words.extend(row.iter().filter_map(|v| v.as_str().map(String::from)));
                }
            }
        }
        words.sort();
        words.dedup();
        words
    }
}

async fn delta(lake: &Lake, statement: &str, target: &Target) -> anyhow::Result<Written> {
    let mut frame = lake.sql(statement).await?;
    if target.format == Format::Table && target.max_rows < usize::MAX {
        // One more than is shown, to know whether there is more.
        frame = frame.limit(0, Some(target.max_rows + 1)).map_err(|e| lake.explain(e))?;
    }
    let mut batches = frame.execute_stream().await.map_err(|e| lake.explain(e))?;
    let mut writer = RowWriter::new(batches.schema(), target)?;
    while let Some(batch) = batches.next().await {
        writer.write(&batch.map_err(|e| lake.explain(e))?)?;
    }
    writer.finish()
}

async fn clickhouse(http: &Http, statement: &str, target: &Target) -> anyhow::Result<Written> {
    let format = match target.format {
        Format::Table => "JSONCompactEachRowWithNamesAndTypes",
        Format::Csv => "CSVWithNames",
        Format::Json => "JSONEachRow",
        Format::Parquet => "Parquet",
    };
    let response = http.run(statement, format).await?;
    // A statement may name its own format: its bytes are what was asked for.
    let named = response.headers().get("x-clickhouse-format").and_then(|f| f.to_str().ok()).map(str::to_owned);
    let own_format = named.as_ref().is_some_and(|f| f != format);
    if target.format != Format::Table || own_format {
        if target.file.is_none() && named.as_deref() == Some("Parquet") && std::io::stdout().is_terminal() {
            bail!("Parquet is no text: name a file with --output FILE.parquet");
        }
        return render::copy(response, target).await;
    }
    let mut lines = response_lines(response);
    let Some(names) = lines.next().await.transpose()? else { return Ok(Written::default()) };
    let names: Vec<String> = serde_json::from_str(&names).context("ClickHouse's answer has no names")?;
    lines.next().await.transpose()?;
    let mut table = render::TableWriter::new(names, target)?;
    while let Some(line) = lines.next().await {
        let row: Vec<serde_json::Value> = serde_json::from_str(&line?).context("ClickHouse's answer is no JSON row")?;
        if !table.row(row.iter().map(json_cell).collect())? {
            break;
        }
    }
    table.finish()
}

fn json_cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "NULL".into(),
        serde_json::Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}
