//! The layers that the batch makes: silver, gold, and gold in ClickHouse.

use std::sync::Mutex;

use serde::Serialize;

use super::super::Context;
use super::super::output::Progress;
use crate::batch::verify::{
    Scope, SilverCheck, TableCheck, Watch, verify_gold, verify_refused, verify_served, verify_silver,
};
use crate::batch::{Lake, refused_table};
use crate::config::{Config, Pipeline};
use crate::serving::Client;

/// What was found of the layers that the batch makes.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Layers {
    pub silver: Vec<SilverCheck>,
    pub refused: Vec<TableCheck>,
    pub gold: Vec<TableCheck>,
    pub clickhouse_gold: Vec<TableCheck>,
}

/// Compares one pipeline's tables; `wants` says which layers.
pub(super) fn check(
    context: &Context,
    config: &Config,
    pipeline: &Pipeline,
    scope: &Scope,
    wants: impl Fn(super::Check) -> bool,
    layers: &mut Layers,
) -> anyhow::Result<()> {
    let lake = Lake::new(&config.server)?;
    let bars = Bars::default();
    let name = &pipeline.name;
    if wants(super::Check::Silver) {
        let found = context.block_on(async { Ok(verify_silver(&lake, pipeline, scope, &bars).await) })?;
        match found {
            Ok(check) => layers.silver.push(check),
            Err(e) => layers.silver.push(SilverCheck::of(TableCheck::failed(name, &format!("silver.{name}"), &e))),
        }
        if scope.is_everything() {
            let found = context.block_on(async { Ok(verify_refused(&lake, pipeline, &bars).await) })?;
            let table = format!("silver.{}", refused_table(name));
            layers.refused.push(found.unwrap_or_else(|e| TableCheck::failed(name, &table, &e)));
        }
    }
    if wants(super::Check::Gold) {
        let found = context.block_on(async { Ok(verify_gold(&lake, pipeline, scope, &bars).await) })?;
        layers.gold.extend(found.unwrap_or_else(|e| vec![TableCheck::failed(name, "gold", &e)]));
    }
    if wants(super::Check::ClickhouseGold) {
        let client = Client::new(&config.server.clickhouse)?;
        let found = context.block_on(async { Ok(verify_served(&lake, pipeline, &client, scope, &bars).await) })?;
        layers.clickhouse_gold.extend(found.unwrap_or_else(|e| vec![TableCheck::failed(name, "gold", &e)]));
    }
    bars.finish();
    Ok(())
}

/// A bar on the terminal for the table that is being compared.
#[derive(Default)]
struct Bars(Mutex<Option<Progress>>);

impl Bars {
    fn set(&self, bar: Option<Progress>) {
        // A bar whose thread panicked is still a bar.
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = current.take() {
            bar.finish();
        }
        *current = bar;
    }

    fn finish(&self) {
        self.set(None);
    }
}

impl Watch for Bars {
    fn begin(&self, table: &str, rows: u64) {
        self.set(Some(Progress::new(table, rows)));
    }

    fn rows(&self, done: u64) {
        let current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = &*current {
            bar.advance(done);
        }
    }
}
