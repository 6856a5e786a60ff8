//! `boathouse validate`: is the configuration right, and what does it come to.

use std::io::Write;

use anyhow::bail;
use serde_json::{Value, json};

use super::output::{self, Grid};
use super::{Context, Outcome};
use crate::batch::{Graph, check_models};
use crate::config::{ConfigError, ConfigErrors, Loaded, Origin, docs};

/// Check the configuration: all mistakes at once, each with its line and a hint. Notes tell of models whose rows may
/// come out differently when they are computed again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse validate                        exit code 0 if right, 2 if not
  boathouse validate --show                 every value in force and where it comes from
  BOATHOUSE__KAFKA__BROKERS=k1:9092 boathouse validate --show
  boathouse validate --reference            the reference of all keys, as Markdown")]
pub(crate) struct Args {
    /// Print every value in force and its origin: default, file and line, or variable.
    #[arg(long)]
    show: bool,

    /// Print the reference of all keys (docs/configuration.md) and check nothing.
    #[arg(long)]
    reference: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let mut out = output::stdout();
        if self.reference && context.json {
            bail!("--reference is a Markdown document; every value in force as JSON: boathouse validate --show --json");
        }
        if self.reference {
            write!(out, "{}", docs::reference())?;
            out.flush()?;
            return Ok(Outcome::Right);
        }
        let loaded = context.loaded().and_then(|loaded| {
            let graphs = check_models(&loaded.config.pipelines)?;
            Ok((loaded, graphs))
        });
        match loaded {
            Ok((loaded, graphs)) if context.json => output::json(&right_as_json(&loaded, &graphs, self.show))?,
            Ok((loaded, _)) if self.show => {
                let mut grid = Grid::new(&["key", "value", "from"]);
                for setting in &loaded.settings {
                    grid.row([setting.path.clone(), shown(&setting.value), setting.origin.to_string()]);
                }
                grid.write(&mut out)?;
            }
            Ok((loaded, graphs)) => {
                let pipelines: Vec<&str> = loaded.config.pipelines.iter().map(|p| p.name.as_str()).collect();
                writeln!(out, "{} is right; pipelines: {}", loaded.path.display(), pipelines.join(", "))?;
                for (pipeline, graph) in pipelines.iter().zip(&graphs).filter(|(_, g)| !g.nodes.is_empty()) {
                    let models: Vec<&str> = graph.nodes.iter().map(|n| n.model.name.as_str()).collect();
                    writeln!(out, "models of {pipeline}, in their order: {}", models.join(", "))?;
                }
                for remark in remarks(&graphs) {
                    writeln!(out, "note: {}: {}", remark.origin, remark.message)?;
                    if let Some(hint) = &remark.hint {
                        writeln!(out, "      {hint}")?;
                    }
                }
            }
            Err(errors) => {
                if context.json {
                    output::json(&wrong_as_json(&errors))?;
                }
                return Err(errors.into());
            }
        }
        out.flush()?;
        Ok(Outcome::Right)
    }
}

/// What is right, and worth a look.
fn remarks(graphs: &[Graph]) -> impl Iterator<Item = &ConfigError> {
    graphs.iter().flat_map(|graph| &graph.nodes).flat_map(|node| &node.remarks)
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "–".into(),
        other => other.to_string(),
    }
}

fn right_as_json(loaded: &Loaded, graphs: &[Graph], show: bool) -> Value {
    let mut out = json!({
        "right": true,
        "file": loaded.path,
        "pipelines": loaded.config.pipelines.iter().map(|p| &p.name).collect::<Vec<_>>(),
        "models": graphs.iter().flat_map(|g| &g.nodes).map(|n| &n.model.name).collect::<Vec<_>>(),
        "notes": remarks(graphs).map(told).collect::<Vec<_>>(),
    });
    if show {
        let settings = loaded.settings.iter().map(|s| {
            let mut entry = json!({ "key": s.path, "value": s.value });
            place(&s.origin, &mut entry);
            entry
        });
        out["settings"] = settings.collect();
    }
    out
}

fn wrong_as_json(errors: &ConfigErrors) -> Value {
    json!({ "right": false, "errors": errors.0.iter().map(told).collect::<Vec<_>>() })
}

fn told(e: &ConfigError) -> Value {
    let mut entry = json!({ "message": e.message, "hint": e.hint });
    place(&e.origin, &mut entry);
    entry
}

fn place(origin: &Origin, entry: &mut Value) {
    match origin {
        Origin::Default => entry["from"] = "default".into(),
        Origin::File { path, line } => {
            entry["from"] = "file".into();
            entry["file"] = json!(path.as_path());
            entry["line"] = json!(line);
        }
        Origin::Env(name) => {
            entry["from"] = "environment".into();
            entry["variable"] = json!(name);
        }
    }
}
