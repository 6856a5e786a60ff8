//! The order of the models: each after those that it reads.

use std::collections::BTreeSet;

use super::super::model::Mistakes;
use super::sql::{GOLD, NAMES, Parsed, SILVER};
use crate::config::ConfigError;

/// Finds what each model reads and sorts them so that inputs come first. An unknown table and a cycle are mistakes.
pub(super) fn sort(pipeline: &str, mut models: Vec<Parsed>) -> Result<Vec<Parsed>, Vec<ConfigError>> {
    let names: BTreeSet<String> = models.iter().map(|m| m.model.name.clone()).collect();
    let mut found = Vec::new();
    for parsed in &mut models {
        let mut mistakes = Mistakes::new(&parsed.model.file);
        for ((schema, table), line) in &parsed.tables {
            match schema.as_str() {
                SILVER if table == pipeline => parsed.reads_silver = Some(*line),
                GOLD if names.contains(table) => drop(parsed.reads.insert(table.clone(), *line)),
                _ => mistakes.add(
                    Some(*line),
                    format!("there is no table `{schema}.{table}`"),
                    unknown(pipeline, &names),
                ),
            }
        }
        found.extend(mistakes.found);
    }
    if !found.is_empty() {
        return Err(found);
    }
    let mut sorted: Vec<Parsed> = Vec::with_capacity(models.len());
    while !models.is_empty() {
        let done: BTreeSet<&str> = sorted.iter().map(|m| m.model.name.as_str()).collect();
        let ready = models.iter().position(|m| m.reads.keys().all(|r| done.contains(r.as_str())));
        match ready {
            Some(next) => {
                let next = models.remove(next);
                sorted.push(next);
            }
            None => return Err(cycle(&models)),
        }
    }
    Ok(sorted)
}

fn unknown(pipeline: &str, models: &BTreeSet<String>) -> String {
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    format!("{NAMES}; here: silver.{pipeline}, {}", models.join(", "))
}

/// The cycle among models none of which can come first.
fn cycle(models: &[Parsed]) -> Vec<ConfigError> {
    let name = |m: &Parsed| m.model.name.clone();
    let input = |m: &Parsed| models.iter().position(|other| m.reads.contains_key(&name(other)));
    // Every model left reads one that is left: following them long enough, one is inside the cycle.
    let (mut at, mut path) = (0, Vec::new());
    while !path.contains(&at) {
        path.push(at);
        let Some(next) = input(&models[at]) else { break };
        at = next;
    }
    let start = path.iter().position(|p| *p == at).unwrap_or(0);
    let cycle: Vec<&Parsed> = path[start..].iter().map(|i| &models[*i]).collect();
    let mut names: Vec<String> = cycle.iter().map(|m| name(m)).collect();
    names.push(names[0].clone());
    let mut mistakes = Mistakes::new(&cycle[0].model.file);
    let line = cycle[0].reads.get(&names[1]).copied();
    mistakes.add(line, format!("the models read each other: {}", names.join(" reads ")), "take one of the steps out");
    mistakes.found
}
