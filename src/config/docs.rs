//! `docs/configuration.md`, written from the types: every key with its type, its default and its doc comment.

use std::fmt::Write;

use serde_json::Value;

use super::shape::{Key, Shape};
use super::tree::join;
use super::{Pipeline, Server};

const HEAD: &str = "\
# Configuration

<!-- Written by `boathouse validate --reference` from the types in src/config/; a test compares this file. -->

`boathouse.toml` says where the servers are; each folder in `pipelines.dir` with a `pipeline.toml` is a pipeline of that
name. Without `--config FILE` (or `BOATHOUSE_CONFIG`) the first of `config/boathouse.toml` and
`/etc/boathouse/boathouse.toml` is read. `boathouse validate` checks everything and reports all mistakes at once;
`boathouse validate --show` prints every value in force and where it comes from.

The environment overrides every key. A name is the key's path in capitals, joined by two underscores:

| to override | set |
|---|---|
| `kafka.brokers` | `BOATHOUSE__KAFKA__BROKERS` |
| `security.protocol` in `kafka.properties` (one underscore for each dot) | `BOATHOUSE__KAFKA__PROPERTIES__SECURITY_PROTOCOL` |
| `aws_region` in `lakehouse.options` | `BOATHOUSE__LAKEHOUSE__OPTIONS__AWS_REGION` |
| `bronze.flush_interval` of the pipeline `user_events` | `BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__FLUSH_INTERVAL` |
| `window` of its aggregate `logins_per_source` | `BOATHOUSE__PIPELINE__USER_EVENTS__AGGREGATE__LOGINS_PER_SOURCE__WINDOW` |

Durations read like `500ms`, `30s`, `10m`, `1h`, `30d`; sizes like `512KiB`, `64MiB`. Unknown keys are errors.
";

/// The whole reference, as Markdown.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n## boathouse.toml\n");
    table(&mut out, &Shape::of::<Server>(), "", "", None);
    out.push_str("\n## pipeline.toml\n");
    table(&mut out, &Shape::of::<Pipeline>(), "", "", None);
    out
}

/// A table's own keys, then the tables in it.
fn table(out: &mut String, shape: &Shape, path: &str, doc: &str, default: Option<&Value>) {
    let Shape::Table(keys) = shape else { return };
    if !path.is_empty() {
        let _ = write!(out, "\n### {path}\n");
    }
    if !doc.is_empty() {
        let _ = write!(out, "\n{doc}\n");
    }
    let (tables, plain): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|k| inner(&k.shape).is_some());
    if !plain.is_empty() {
        out.push_str("\n| key | type | default | |\n|---|---|---|---|\n");
    }
    for key in plain {
        let default = default.and_then(|d| d.get(&key.name)).or(key.default.as_ref());
        let shown = match default {
            _ if key.required => "required".to_string(),
            None | Some(Value::Null) => "–".into(),
            Some(Value::String(s)) if s.is_empty() => "–".into(),
            Some(Value::Object(o)) if o.is_empty() => "–".into(),
            Some(value) => format!("`{}`", toml(value)),
        };
        let _ = writeln!(out, "| `{}` | {} | {shown} | {} |", key.name, kind(&key.shape), key.doc.replace('|', "\\|"));
    }
    for key in tables {
        let path = join(path.trim_matches(['[', ']', '`']), &key.name);
        let Some(shape) = inner(&key.shape) else { continue };
        let heading = if matches!(key.shape, Shape::List(_)) { format!("`[[{path}]]`") } else { format!("`[{path}]`") };
        table(out, shape, &heading, &key.doc, key.default.as_ref());
    }
}

/// The shape of a section: a table, or a list of tables.
fn inner(shape: &Shape) -> Option<&Shape> {
    match shape {
        Shape::Table(_) => Some(shape),
        Shape::List(item) if matches!(**item, Shape::Table(_)) => Some(item),
        _ => None,
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::String(s) => format!("\"{s}\""),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Table(_) => "table".into(),
        Shape::Map { item, .. } if **item == Shape::Text => "table of texts".into(),
        Shape::Map { item, .. } => format!("table, each a {}", kind(item)),
        Shape::List(item) if **item == Shape::Text => "list of texts".into(),
        Shape::List(item) => format!("list, each {}", kind(item)),
        Shape::Text => "text".into(),
        Shape::Secret => "secret text".into(),
        Shape::Duration { forever: false } => "duration".into(),
        Shape::Duration { forever: true } => "duration or `\"forever\"`".into(),
        Shape::Size => "size".into(),
        Shape::Choice(choices) => choices.iter().map(|c| format!("`\"{c}\"`")).collect::<Vec<_>>().join(", "),
        Shape::Int { .. } => "whole number".into(),
        Shape::Float => "number".into(),
        Shape::Bool => "`true`, `false`".into(),
        Shape::OneOf(shapes) => shapes.iter().map(kind).collect::<Vec<_>>().join(" or "),
    }
}
