//! The layers that the batch makes: silver, gold, and gold in ClickHouse.

use serde::Serialize;

use super::Means;
use crate::batch::refused_table;
use crate::batch::verify::{
    Scope, SilverCheck, TableCheck, Watch, verify_gold, verify_refused, verify_served, verify_silver,
};
use crate::config::Pipeline;
use crate::serving::Client;

/// What was found of the layers that the batch makes.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Layers {
    pub silver: Vec<SilverCheck>,
    pub refused: Vec<TableCheck>,
    pub gold: Vec<TableCheck>,
    pub clickhouse_gold: Vec<TableCheck>,
}

/// Compares one pipeline's tables; `wants` says which layers.
pub(crate) fn check(
    means: &Means<'_>,
    pipeline: &Pipeline,
    scope: &Scope,
    wants: impl Fn(super::Check) -> bool,
    layers: &mut Layers,
) -> anyhow::Result<()> {
    let Means { config, lake, .. } = means;
    let watch: &dyn Watch = means.observer;
    let name = &pipeline.name;
    if wants(super::Check::Silver) {
        let found = means.wait(async { Ok(verify_silver(lake, pipeline, scope, watch).await) })?;
        match found {
            Ok(check) => layers.silver.push(check),
            Err(e) => layers.silver.push(SilverCheck::of(TableCheck::failed(name, &format!("silver.{name}"), &e))),
        }
        if scope.is_everything() {
            let found = means.wait(async { Ok(verify_refused(lake, pipeline, watch).await) })?;
            let table = format!("silver.{}", refused_table(name));
            layers.refused.push(found.unwrap_or_else(|e| TableCheck::failed(name, &table, &e)));
        }
    }
    if wants(super::Check::Gold) {
        let found = means.wait(async { Ok(verify_gold(lake, pipeline, scope, watch).await) })?;
        layers.gold.extend(found.unwrap_or_else(|e| vec![TableCheck::failed(name, "gold", &e)]));
    }
    if wants(super::Check::ClickhouseGold) {
        let client = Client::new(&config.server.clickhouse)?;
        let found = means.wait(async { Ok(verify_served(lake, pipeline, &client, scope, watch).await) })?;
        layers.clickhouse_gold.extend(found.unwrap_or_else(|e| vec![TableCheck::failed(name, "gold", &e)]));
    }
    Ok(())
}
