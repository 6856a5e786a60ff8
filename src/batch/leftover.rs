//! What is left of models that no pipeline has any more: a Delta table in gold, tables and a view in ClickHouse. Nothing
//! takes them away by itself, for they may hold dates that silver has no longer: they are told of, and dropped by hand.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::gold::FINGERPRINT;
use super::graph::Graph;
use super::publish::served_error;
use super::upkeep::{TableSummary, summary};
use super::{BatchError, Lake, Layer};
use crate::serving::{Client, GoldLeftover};
use crate::storage::Place;

/// The Delta tables in gold that models have made which are none of these, by their names.
pub async fn delta_leftovers(lake: &Lake, graphs: &[Graph]) -> Result<BTreeMap<String, TableSummary>, BatchError> {
    let mut left = BTreeMap::new();
    for name in lake.tables(Layer::Gold).await? {
        if let Some(found) = delta_leftover(lake, graphs, &name).await? {
            left.insert(name, found);
        }
    }
    Ok(left)
}

/// The Delta table of this name in gold, if a model has made it which is none of these.
pub async fn delta_leftover(lake: &Lake, graphs: &[Graph], name: &str) -> Result<Option<TableSummary>, BatchError> {
    // Models are named in small letters, and not every disk tells them from capitals.
    if graphs.iter().any(|graph| graph.node_of(&name.to_ascii_lowercase()).is_some()) {
        return Ok(None);
    }
    let Some(table) = lake.open(Layer::Gold, name).await? else { return Ok(None) };
    // The platform's own tables have no model, and neither has what others have put there.
    let ours = table.snapshot().is_ok_and(|state| state.metadata().configuration().contains_key(FINGERPRINT));
    if ours { summary(lake, Layer::Gold, name).await } else { Ok(None) }
}

/// What ClickHouse has of models that are none of these, by the names of their views.
pub async fn served_leftovers(client: &Client, graphs: &[Graph]) -> Result<BTreeMap<String, GoldLeftover>, BatchError> {
    let served = graphs.iter().flat_map(Graph::served).filter_map(|n| n.model.header.clickhouse.clone()).collect();
    client.gold_leftovers(&served).await.map_err(served_error)
}

/// Drops what [`served_leftovers`] has found under a name.
pub async fn drop_served(client: &Client, view: &str, left: &GoldLeftover) -> Result<(), BatchError> {
    client.drop_gold_leftover(view, left).await.map_err(served_error)
}

/// Deletes a Delta table that [`delta_leftovers`] has found, its log last and from its end: until the last file is gone it
/// can be told whose it was, so that a removal that was interrupted goes on when it is asked for again.
pub async fn drop_delta(lake: &Lake, name: &str) -> Result<(), BatchError> {
    let failed =
        |e: &dyn std::fmt::Display| BatchError::unavailable(format!("the files of gold.{name} cannot be deleted"), e);
    let store = lake.log_store(Layer::Gold, name)?.object_store(None);
    let mut files: Vec<Path> =
        store.list(None).map_ok(|file| file.location).try_collect().await.map_err(|e| failed(&e))?;
    files.sort_unstable_by(|a, b| (in_log(a), b).cmp(&(in_log(b), a)));
    // One after the other: the order matters.
    for file in files {
        match store.delete(&file).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(failed(&e)),
        }
    }
    if let Ok(Place::Folder(folder)) = Place::of(&lake.table_uri(Layer::Gold, name)) {
        match tokio::fs::remove_dir_all(folder).await {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&e)),
        }
    }
    Ok(())
}

fn in_log(file: &Path) -> bool {
    file.as_ref().starts_with("_delta_log/")
}
