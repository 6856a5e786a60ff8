//! What a model promises in its header, held against its SQL.

use arrow::datatypes::{DataType, SchemaRef};

use super::super::model::{Kind, Mistakes, Model};
use super::sql::Parsed;
use super::{Graph, Node};
use crate::config::ConfigError;

/// Whether its inputs are of kinds that let it be kept up to date.
pub(super) fn inputs(parsed: &Parsed, inputs: &[&Node], mistakes: &mut Mistakes<'_>) {
    match parsed.model.header.kind {
        Kind::ByDate => {
            for input in inputs.iter().filter(|n| n.model.header.kind == Kind::Snapshot) {
                let name = &input.model.name;
                let hint = "a snapshot changes with every run, also for dates that are not computed again";
                let line = parsed.reads.get(name).copied();
                mistakes.add(line, format!("a model by date cannot read the snapshot {name}"), hint);
            }
        }
        Kind::Snapshot => {
            if let Some(line) = parsed.reads_silver {
                let hint = "it would read all of history at each run: put what it needs of each day into a model by date, and read that";
                mistakes.add(Some(line), "a snapshot cannot read silver", hint);
            }
        }
    }
}

/// Whether the columns are those of the header.
pub(super) fn columns(model: &Model, schema: &SchemaRef, mistakes: &mut Mistakes<'_>) {
    let header = &model.header;
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let listed = || format!("the columns are {}", names.join(", "));
    for (i, name) in names.iter().enumerate() {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(plain) || name.len() > 64 {
            mistakes.add(
                None,
                format!("column `{name}` has no plain name"),
                "name it with AS, as in count(*) AS events",
            );
        } else if names[..i].contains(name) {
            mistakes.add(None, format!("column `{name}` is there twice"), "name one of them with AS");
        } else if !header.columns.iter().any(|c| c.name == *name) {
            let hint = format!("add the line `-- column {name}: what it means`");
            mistakes.add(Some(1), format!("column `{name}` has no description"), hint);
        }
        if *name == "run_id" && header.clickhouse.is_some() {
            mistakes.add(
                None,
                "a served model cannot have a column `run_id`",
                "ClickHouse's rows bear the run's id there",
            );
        }
    }
    for column in header.columns.iter().filter(|c| !names.contains(&c.name.as_str())) {
        mistakes.add(Some(column.line), format!("the SQL gives no column `{}`", column.name), listed());
    }
    for column in header.grain.iter().filter(|c| !names.contains(&c.as_str())) {
        mistakes.add(Some(header.line("grain")), format!("the grain names `{column}`, which is no column"), listed());
    }
    let Some(partition) = &header.partition else { return };
    let line = Some(header.line("partition"));
    match schema.field_with_name(partition) {
        Err(_) => mistakes.add(line, format!("the partition `{partition}` is no column"), listed()),
        Ok(field) if *field.data_type() != DataType::Date32 => {
            let message = format!("the partition `{partition}` has the type {}", field.data_type());
            mistakes.add(line, message, "it must be a date: cast it with AS, as in CAST(x AS DATE)");
        }
        Ok(_) => {}
    }
    if !header.grain.contains(partition) {
        let hint = "a row belongs to one date: name the partition among the grain's columns";
        mistakes.add(Some(header.line("grain")), format!("the grain lacks the partition `{partition}`"), hint);
    }
}

/// Tables and views have one name space, whatever pipeline a model is of.
pub(super) fn across(graphs: &[Graph]) -> Vec<ConfigError> {
    let models: Vec<&Model> = graphs.iter().flat_map(|g| g.nodes.iter().map(|n| &n.model)).collect();
    let mut found = Vec::new();
    for (i, model) in models.iter().enumerate() {
        let mut mistakes = Mistakes::new(&model.file);
        if let Some(first) = models[..i].iter().find(|m| m.name == model.name) {
            let message =
                format!("the model {} is there twice: its table gold/{0} would be written by both", model.name);
            mistakes.add(None, message, format!("the first is {}: rename one of them", first.file.display()));
        }
        let view = &model.header.clickhouse;
        if let Some(first) = models[..i].iter().find(|m| view.is_some() && m.header.clickhouse == *view) {
            let message = format!("the view gold.{} is another model's already", view.as_deref().unwrap_or_default());
            let hint = format!("the first is {}: name another one", first.file.display());
            mistakes.add(Some(model.header.line("clickhouse")), message, hint);
        }
        found.extend(mistakes.found);
    }
    found
}
