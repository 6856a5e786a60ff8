//! `boathouse dead-letters redrive`: sends letters again, corrected: one by its place, or all that a search finds.

use std::io::{Read as _, Write};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::Which;
use crate::cli::lake::Lake;
use crate::cli::output::{self, Grid, count, safe_bytes, safe_text, shorten};
use crate::cli::remote::{Remote, Way};
use crate::cli::{pipelines, status};
use crate::config::{Config, Pipeline};
use crate::letters::edit::Change;
use crate::letters::redrive::bulk::{Left, Redriven, Sorted};
use crate::letters::redrive::{Edit, Marks, Prepared, Redriver, Sent};

/// Characters of a value in the preview.
const PREVIEW: usize = 200;

/// Send a corrected event to the topic: the letter is resolved once it has come and silver keeps it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The corrected event keeps key and headers, goes to the letter's own partition, and bears the header boathouse-origin. It is
decoded and judged by the pipeline's own rules first; what would be a dead letter again is not sent. An event whose time is
long past is late: it comes to silver and gold with the next batch and is in no realtime window.

Examples:
  boathouse dead-letters redrive user-events/2/1041 --set user_id=7 --dry-run   what it would be; nothing is sent
  boathouse dead-letters redrive user-events/2/1041 --set user_id=7
  jq '.page = \"/\"' bad.json | boathouse dead-letters redrive user-events/0/2/1041 --value -
  boathouse dead-letters redrive --reason 'source: missing' --set source=web    how many there are, and what they would be
  boathouse dead-letters redrive --reason 'source: missing' --set source=web --yes")]
pub(crate) struct Redrive {
    /// One letter, as `list` prints it (topic/generation/partition/offset; without the generation the newest). Without
    /// it all open letters that the other arguments choose.
    #[arg(conflicts_with_all = ["pipeline", "status", "since", "from", "to", "reason"])]
    source: Option<String>,
    #[command(flatten)]
    which: Which,
    /// The whole corrected value, from a file, or from standard input (`-`).
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with_all = ["set", "unset"])]
    value: Option<String>,
    /// A field and its corrected value; may be given several times.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// A field to take out; may be given several times.
    #[arg(long, value_name = "FIELD")]
    unset: Vec<String>,
    /// Show what would be sent and what would become of it, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Send what a search has found; without it the search is only shown.
    #[arg(long)]
    yes: bool,
    /// Send also what would be a dead letter again, and what is resolved or was sent already.
    #[arg(long)]
    force: bool,
}

impl Redrive {
    pub async fn run(&self, config: &Config, lake: Lake, way: Way, json: bool) -> anyhow::Result<()> {
        let mut redriver = Redriver::new(config.clone(), lake, marks(config).await);
        match &self.source {
            Some(source) => self.one(config, &mut redriver, source, way, json).await,
            None => self.many(config, &mut redriver, way, json).await,
        }
    }

    fn edit(&self, pipeline: &Pipeline) -> anyhow::Result<Edit> {
        if let Some(file) = &self.value {
            return Ok(Edit::Value(read(file)?));
        }
        Ok(Edit::Changes(self.changes(pipeline)?))
    }

    fn changes(&self, pipeline: &Pipeline) -> anyhow::Result<Vec<Change>> {
        let set = self.set.iter().map(|text| Change::read(pipeline, text));
        let unset = self.unset.iter().map(|field| Change::unset(pipeline, field));
        Ok(set.chain(unset).collect::<Result<_, _>>()?)
    }

    async fn one(
        &self,
        config: &Config,
        redriver: &mut Redriver,
        source: &str,
        way: Way,
        json: bool,
    ) -> anyhow::Result<()> {
        let letter = redriver.letter(source).await?;
        let edit = self.edit(redriver.pipeline(&letter.pipeline)?)?;
        let prepared = redriver.prepare(letter, &edit)?;
        if self.dry_run {
            return if json { output::json(&prepared.json()) } else { show(&prepared) };
        }
        if !json {
            show(&prepared)?;
        }
        let daemon = Remote::find(config, way).await?;
        // JSON has no way to say what is no text, which is no event either.
        if let (Some(daemon), Some(body)) = (daemon, body(&prepared, &edit, self.force)) {
            let sent: Sent = daemon.post(&["dead-letters", "redrive"], &body).await?;
            told(&sent, json);
            return if json { output::json(&sent) } else { Ok(()) };
        }
        let sent = send(redriver, &[prepared], self.force, json).await?;
        note(config, &sent);
        if json { output::json(&sent.first()) } else { Ok(()) }
    }

    async fn many(&self, config: &Config, redriver: &mut Redriver, way: Way, json: bool) -> anyhow::Result<()> {
        let chosen = &self.which;
        if chosen.reason.is_none() && chosen.status.is_none() && chosen.from.is_none() && chosen.since.is_none() {
            bail!("which letters? Name one (`list` prints them), or choose by --reason, --status, --from or --since");
        }
        let daemon = if self.dry_run || !self.yes { None } else { Remote::find(config, way).await? };
        let done = match daemon {
            Some(daemon) => {
                let done: Redriven = daemon.post(&["dead-letters", "redrive-all"], &self.bulk(config)?).await?;
                done.sent.iter().for_each(|sent| told(sent, json));
                done
            }
            None => {
                let sorted = redriver.sort(chosen.search(None, 0), self.force, |of| self.edit(of)).await?;
                if self.dry_run || !self.yes {
                    self.preview(&sorted, json)?;
                    if !self.dry_run && !sorted.fit.is_empty() {
                        bail!("nothing was sent: --yes sends these {}", count(sorted.fit.len() as i128));
                    }
                    return Ok(());
                }
                let sent = send(redriver, &sorted.fit, self.force, json).await?;
                note(config, &sent);
                Redriven { sent, left: sorted.left }
            }
        };
        if json {
            return output::json(&done);
        }
        let mut out = output::stdout();
        let (sent, left) = (count(done.sent.len() as i128), count(done.left.len() as i128));
        writeln!(out, "{sent} sent again, {left} left.")?;
        Ok(out.flush()?)
    }

    /// What the daemon is asked to do with many. Values have the types that the pipeline gives their fields.
    fn bulk(&self, config: &Config) -> anyhow::Result<Value> {
        let chosen = &self.which;
        let pipeline = match (&chosen.pipeline, &config.pipelines[..]) {
            (Some(name), _) => pipelines::named(config, name)?,
            (None, [only]) => only,
            (None, _) => bail!("of which pipeline? Add --pipeline"),
        };
        let set: Map<String, Value> =
            self.changes(pipeline)?.into_iter().map(|c| (c.field, c.value.unwrap_or_default())).collect();
        let search = chosen.search(None, 0);
        let moment = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339()).unwrap_or_default();
        let which = json!({
            "pipeline": search.pipeline.unwrap_or_default(),
            "status": search.status.and_then(|s| s.to_possible_value().map(|v| v.get_name().to_owned())).unwrap_or_default(),
            "from": moment(search.from),
            "to": moment(search.to),
            "reason": search.reason.unwrap_or_default(),
        });
        Ok(json!({ "which": which, "set": set, "force": self.force }))
    }

    fn preview(&self, sorted: &Sorted, json: bool) -> anyhow::Result<()> {
        let Sorted { fit, left, at_limit } = sorted;
        if json {
            let fit: Vec<_> = fit.iter().map(Prepared::json).collect();
            return output::json(&json!({"would_send": fit, "left": left}));
        }
        let mut out = output::stdout();
        writeln!(
            out,
            "{} letters found: {} would be sent again, {} would be dead letters again and are left.{}",
            count((fit.len() + left.len()) as i128),
            count(fit.len() as i128),
            count(left.len() as i128),
            if *at_limit { " There are more: the next command takes them." } else { "" }
        )?;
        let mut grid = Grid::new(&["source", "verdict", "would be sent"]);
        for prepared in fit.iter().take(5) {
            grid.row([
                safe_text(&prepared.letter.source()),
                prepared.foreseen.verdict.to_owned(),
                shorten(&safe_bytes(&prepared.value), PREVIEW),
            ]);
        }
        if !fit.is_empty() {
            grid.write(&mut out)?;
            if fit.len() > 5 {
                writeln!(out, "… and {} more", count((fit.len() - 5) as i128))?;
            }
        }
        for Left { source, why } in left.iter().take(5) {
            writeln!(out, "left: {}: {}", safe_text(source), safe_text(why))?;
        }
        Ok(out.flush()?)
    }
}

/// What the daemon is asked to send; none where JSON cannot say it.
fn body(prepared: &Prepared, edit: &Edit, force: bool) -> Option<Value> {
    let source = prepared.letter.source();
    Some(match edit {
        Edit::Value(value) => json!({ "source": source, "value": std::str::from_utf8(value).ok()?, "force": force }),
        Edit::Changes(changes) => {
            let set: Map<String, Value> =
                changes.iter().map(|c| (c.field.clone(), c.value.clone().unwrap_or_default())).collect();
            json!({ "source": source, "set": set, "force": force })
        }
    })
}

/// Tells of one that the topic has.
fn told(sent: &Sent, json: bool) {
    if !json {
        println!("{} was sent again as {}/{}/{}", sent.origin, sent.topic, sent.partition, sent.offset);
    }
}

fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    if file == "-" {
        std::io::stdin().lock().read_to_end(&mut value).context("standard input cannot be read")?;
    } else {
        value = std::fs::read(file).with_context(|| format!("{file} cannot be read"))?;
    }
    // An editor's last new line is no part of the event.
    while value.last().is_some_and(u8::is_ascii_whitespace) {
        value.pop();
    }
    Ok(value)
}

fn show(prepared: &Prepared) -> anyhow::Result<()> {
    let mut out = output::stdout();
    let letter = &prepared.letter;
    writeln!(out, "{}  {} ({})", safe_text(&letter.source()), letter.status, letter.state())?;
    if !letter.reason.is_empty() {
        writeln!(out, "  because   {}", safe_text(&letter.reason))?;
    }
    let absent = || "–".to_owned();
    writeln!(out, "  was       {}", letter.value.as_deref().map_or_else(absent, |v| shorten(&safe_bytes(v), 2_000)))?;
    writeln!(out, "  would be  {}", shorten(&safe_bytes(&prepared.value), 2_000))?;
    for difference in prepared.differences.iter().flatten() {
        let shown = |text: &Option<String>| text.as_deref().map_or_else(absent, safe_text);
        writeln!(
            out,
            "  {}: {} → {}",
            safe_text(&difference.field),
            shown(&difference.before),
            shown(&difference.after)
        )?;
    }
    writeln!(out, "  verdict   {}: {}", prepared.foreseen.verdict, safe_text(&prepared.foreseen.text))?;
    Ok(out.flush()?)
}

async fn send(redriver: &Redriver, events: &[Prepared], force: bool, json: bool) -> anyhow::Result<Vec<Sent>> {
    redriver.send(events, force, |sent| told(sent, json)).await
}

/// Notes in the console's audit log what was sent, where the console's folder is on this machine.
fn note(config: &Config, sent: &[Sent]) {
    let shown = |sent: &Sent| format!("{} as {}/{}/{}", sent.origin, sent.topic, sent.partition, sent.offset);
    let mut detail = sent.iter().take(20).map(shown).collect::<Vec<_>>().join(", ");
    if sent.len() > 20 {
        detail += &format!(" and {} more", sent.len() - 20);
    }
    crate::cli::console::note(&config.server.data_dir, "dead-letters redrive", detail);
}

/// The event clocks, where a daemon tells them.
async fn marks(config: &Config) -> Marks {
    let Ok(Some(status)) = status::ask(&config.server.metrics.listen).await else { return Marks::new() };
    let known = status.partitions.into_iter();
    known.filter_map(|p| Some(((p.pipeline, p.partition), p.mark_us?))).collect()
}
