//! The pipelines that a command is about.

use std::sync::Arc;

use anyhow::bail;

use crate::config::{Config, Pipeline};

/// The pipeline of a name, or an error that names those there are.
pub(super) fn named<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a Arc<Pipeline>> {
    if let Some(pipeline) = config.pipelines.iter().find(|p| p.name == name) {
        return Ok(pipeline);
    }
    let names: Vec<&str> = config.pipelines.iter().map(|p| p.name.as_str()).collect();
    bail!("there is no pipeline `{name}`; the pipelines are {}", names.join(", "));
}

/// The pipeline of a name, or all of them.
pub(super) fn chosen<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<Vec<&'a Arc<Pipeline>>> {
    match name {
        Some(name) => Ok(vec![named(config, name)?]),
        None => Ok(config.pipelines.iter().collect()),
    }
}
