//! The lakehouse as SQL sees it: Delta tables by name and by path, opened when a statement names them, only read.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::delta_datafusion::{DeltaRuntimeEnvBuilder, DeltaSessionConfig, DeltaSessionContext};

use crate::storage::Place;

/// Bytes that a statement may hold before it spills to disk.
const MEMORY_BYTES: usize = 512 << 20;

const CATALOG: &str = "lakehouse";
/// The layers, each a schema of its own; the first is the one that a bare table name means.
const LAYERS: [&str; 3] = ["bronze", "silver", "gold"];
/// The schema whose table names are paths, as in Spark: ``delta.`/path` ``.
const BY_PATH: &str = "delta";

/// Opens tables for a session, in the place of opening each from nothing for every statement.
#[async_trait]
pub(crate) trait Open: std::fmt::Debug + Send + Sync {
    /// A table of a layer at its newest version; none where there is none of that name.
    async fn open(&self, layer: &str, name: &str) -> anyhow::Result<Option<deltalake::DeltaTable>>;
}

/// A DataFusion session over a lakehouse.
#[derive(Clone)]
pub(crate) struct Lake {
    session: SessionContext,
    root: Option<Place>,
    /// Whether statements such as `SET` are taken, which change the session alone.
    statements: bool,
}

impl Lake {
    /// A session over the lakehouse at `uri` (a folder, or an address of a bucket); without one, only paths are known.
    pub fn open(uri: Option<&str>) -> anyhow::Result<Self> {
        let lake = Self::with(uri, MEMORY_BYTES, true, None)?;
        if let Some(catalog) = lake.session.catalog(CATALOG) {
            catalog.register_schema(BY_PATH, Arc::new(ByPath))?;
        }
        Ok(lake)
    }

    /// A session that knows the lakehouse's own tables and nothing by path, changes no setting, and holds so many bytes:
    /// for people who may read tables and nothing else.
    pub fn open_by_name(uri: &str, memory_bytes: usize) -> anyhow::Result<Self> {
        Self::with(Some(uri), memory_bytes, false, None)
    }

    /// As [`Self::open_by_name`], with tables that somebody else keeps open.
    pub fn kept_open(uri: &str, memory_bytes: usize, open: Arc<dyn Open>) -> anyhow::Result<Self> {
        Self::with(Some(uri), memory_bytes, false, Some(open))
    }

    fn with(
        uri: Option<&str>,
        memory_bytes: usize,
        statements: bool,
        open: Option<Arc<dyn Open>>,
    ) -> anyhow::Result<Self> {
        let root = uri.map(Place::of).transpose()?;
        let runtime = DeltaRuntimeEnvBuilder::new().with_max_spill_size(memory_bytes).build();
        let base = DeltaSessionContext::with_runtime_env(runtime).into_inner();
        let config = SessionConfig::from(DeltaSessionConfig::default())
            .set_bool("datafusion.sql_parser.enable_ident_normalization", true)
            .with_default_catalog_and_schema(CATALOG, LAYERS[0])
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true);
        let state =
            datafusion::execution::SessionStateBuilder::new_from_existing(base.state()).with_config(config).build();
        let session = SessionContext::new_with_state(state);
        let catalog = MemoryCatalogProvider::new();
        for layer in LAYERS {
            let place = root.as_ref().map(|r| r.join(layer));
            catalog.register_schema(layer, Arc::new(Layer { name: layer, place, open: open.clone() }))?;
        }
        session.register_catalog(CATALOG, Arc::new(catalog));
        Ok(Self { session, root, statements })
    }

    /// Plans a statement that reads. Everything that would write is refused.
    pub async fn sql(&self, statement: &str) -> anyhow::Result<DataFrame> {
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(self.statements);
        match self.session.sql_with_options(statement, reading).await {
            Ok(frame) => Ok(frame),
            Err(e) => Err(self.explain(e)),
        }
    }

    /// Tables by name, as `bronze.user_events`.
    pub fn tables(&self) -> Vec<String> {
        self.root.as_ref().map(tables_below).unwrap_or_default()
    }

    /// Names of the functions that statements may call.
    pub fn functions(&self) -> Vec<String> {
        let state = self.session.state();
        let scalar = state.scalar_functions().keys();
        let mut names: Vec<String> =
            scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// The columns of a table and their types.
    pub async fn columns(&self, table: &str) -> anyhow::Result<Vec<(String, String)>> {
        let frame = self.session.table(table).await.map_err(|e| self.explain(e))?;
        Ok(frame.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().to_string())).collect())
    }

    /// DataFusion's error in the user's terms.
    pub fn explain(&self, error: DataFusionError) -> anyhow::Error {
        let text = error.strip_backtrace();
        let text = text.trim_start_matches("Error during planning: ").replace("table 'lakehouse.", "table '");
        if text.contains("not found") && text.contains("table '") {
            let tables = self.tables();
            let known = if tables.is_empty() {
                "there is no table yet: has the daemon run with this configuration?".to_string()
            } else {
                format!("the tables are {}; others by path: delta.`/path`", tables.join(", "))
            };
            return anyhow::anyhow!("{text}\n{known}");
        }
        if text.contains("DDL not supported") || text.contains("DML not supported") {
            return anyhow::anyhow!("this only reads: {text}");
        }
        anyhow::anyhow!("{text}")
    }
}

/// The tables of the lakehouse at `uri` by name, as `bronze.user_events`, those that are there now.
pub(crate) fn tables_at(uri: &str) -> anyhow::Result<Vec<String>> {
    Ok(tables_below(&Place::of(uri)?))
}

fn tables_below(root: &Place) -> Vec<String> {
    let names = |layer: &str| {
        table_names(&root.join(layer)).into_iter().map(|name| format!("{layer}.{name}")).collect::<Vec<_>>()
    };
    LAYERS.iter().flat_map(|layer| names(layer)).collect()
}

/// Opens the Delta table at a place at its newest version, or at `version`.
pub(crate) async fn open_delta(place: &Place, version: Option<u64>) -> anyhow::Result<deltalake::DeltaTable> {
    if place.folder().is_some_and(|folder| !folder.is_dir()) {
        bail!("there is no folder {place}");
    }
    if !place.is_table().await? {
        bail!("{place} is no Delta table: it has no _delta_log");
    }
    let url = place.url()?;
    let table = match version {
        None => deltalake::open_table(url).await,
        Some(version) => deltalake::open_table_with_version(url, version).await,
    };
    table.with_context(|| format!("the Delta table {place} cannot be read"))
}

async fn provider(place: &Place, version: Option<u64>) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    let table = open_delta(place, version).await.map_err(|e| DataFusionError::Plan(format!("{e:#}")))?;
    table.table_provider().await
}

/// The Delta tables at a place, by name; none where it cannot be looked at, which opening one then says.
fn table_names(place: &Place) -> Vec<String> {
    let look = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(place.tables()).ok()
    };
    // A catalog is asked for its names without waiting, from threads that must not block on a runtime of their own.
    std::thread::scope(|scope| scope.spawn(look).join().ok().flatten()).unwrap_or_default()
}

/// One layer's tables. Every statement sees the newest version.
#[derive(Debug)]
struct Layer {
    name: &'static str,
    place: Option<Place>,
    open: Option<Arc<dyn Open>>,
}

#[async_trait]
impl SchemaProvider for Layer {
    fn table_names(&self) -> Vec<String> {
        self.place.as_ref().map(table_names).unwrap_or_default()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        // A name with a separator could leave the layer's folder.
        let Some(place) = self.place.as_ref().filter(|_| self.table_exist(name)) else { return Ok(None) };
        let Some(open) = &self.open else { return provider(&place.join(name), None).await.map(Some) };
        match open.open(self.name, name).await.map_err(|e| DataFusionError::Plan(format!("{e:#}")))? {
            Some(table) => table.table_provider().await.map(Some),
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|n| n == name)
    }
}

/// Tables by path, at a version if the path ends in `@v12`.
#[derive(Debug)]
struct ByPath;

#[async_trait]
impl SchemaProvider for ByPath {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let (path, version) = match name.rsplit_once("@v") {
            Some((path, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                (path, digits.parse().ok())
            }
            _ => (name, None),
        };
        let place = Place::of(path).map_err(|e| DataFusionError::Plan(e.to_string()))?;
        provider(&place, version).await.map(Some)
    }

    fn table_exist(&self, name: &str) -> bool {
        !name.is_empty()
    }
}
