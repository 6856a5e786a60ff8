//! Starting the engine on a folder: the lock, the engine's own configuration, the first connection.
//!
//! Every connection is the engine's user `default`. It holds the grants of an ordinary user; the role `admin`, which a
//! session of anybody else gives up, adds the statements of an administrator. No grant covers a source.
//!
//! Left to itself, libchdb lays an overlay over the database `default` in which every path of the file system is a
//! table: `TRUNCATE TABLE default.`/etc/x`` empties a file, and a Buffer table reads one, without any grant. So the
//! overlay is switched off, and `default` is an ordinary Atomic database that is written down before the first start.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::EngineError;
use super::ffi::{Connection, Library, LoadError};
use super::guard::Guard;
use super::users::Access;

/// The engine whose functions and settings this room was written against.
pub const LIBRARY_VERSION: &str = "26.7.3-stable.1";

/// Settings nobody may change: they name files or hosts, hold SQL in a string, change the language, or loosen checks.
pub const FROZEN_SETTINGS: [&str; 26] = [
    "additional_result_filter",
    "additional_table_filters",
    "allow_experimental_ai_functions",
    "allow_experimental_eval_table_function",
    "allow_introspection_functions",
    "allow_python_table_function",
    "ai_function_text_default_credentials",
    "ai_function_embedding_default_credentials",
    "default_materialized_view_sql_security",
    "default_normal_view_sql_security",
    "default_view_definer",
    "dialect",
    "format_avro_schema_registry_url",
    "format_display_secrets_in_show_and_select",
    "format_schema",
    "format_schema_source",
    "format_template_resultset",
    "format_template_row",
    "implicit_select",
    "input_format_record_errors_file_path",
    "output_format_schema",
    "parallel_replicas_custom_key",
    "polyglot_dialect",
    "rename_files_after_processing",
    "s3_allow_server_credentials_in_user_queries",
    "url_base",
];

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(
        "the engine library was not found at {0}; run `make tools`, or name one with --library or BOATHOUSE_LIBCHDB"
    )]
    NoLibrary(PathBuf),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the data folder {path} cannot be used: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("another engine is running on {0}; stop it, or give this one a different --path")]
    Locked(PathBuf),
    #[error("the engine did not start on {0}; its reason stands above (a damaged folder, no space, an older format)")]
    Refused(PathBuf),
    #[error("the engine started but does not work: {0}")]
    Broken(#[from] EngineError),
}

/// A running engine.
pub struct Engine {
    library: &'static Library,
    arguments: Vec<String>,
    /// The engine's version, such as `26.7.2.1`.
    pub version: String,
    /// The engine's time zone.
    pub timezone: String,
    pub guard: Guard,
    /// Held open for the life of the process: closing the last connection would shut the engine down.
    _first: std::sync::Mutex<Connection>,
    _lock: File,
}

/// Where the library is looked for: what the user named, else the cache that `tools/chdb.sh` fills.
#[allow(clippy::disallowed_methods, reason = "the XDG rule for the cache folder is made of these variables")]
pub fn find_library(named: Option<&Path>) -> Result<PathBuf, BootError> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
            cache.unwrap_or_else(home).join("boathouse/chdb").join(LIBRARY_VERSION).join("libchdb.so")
        }
    };
    if path.is_file() { Ok(path) } else { Err(BootError::NoLibrary(path)) }
}

impl Engine {
    /// Boots the engine on `folder` (created when missing), with at most `memory_limit` bytes for all queries.
    pub fn start(library: &Path, folder: &Path, memory_limit: u64) -> Result<Self, BootError> {
        let error = |source| BootError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(error)?;
        let folder = folder.canonicalize().map_err(error)?;
        let lock = lock(&folder)?;
        let config = write_config(&folder, memory_limit).map_err(error)?;
        write_default_database(&folder).map_err(error)?;
        let library = Library::load(library)?;
        let arguments = vec![format!("--path={}", folder.display()), "--implicit_select=0".to_owned()];
        let mut boot = arguments.clone();
        boot.push(format!("--config-file={}", config.display()));
        let mut first = library.connect(&boot).ok_or(BootError::Refused(folder))?;
        let mut ask = |sql: &str| {
            let answer = first.query(sql.as_bytes(), "TSVRaw", &[])?;
            Ok::<_, EngineError>(String::from_utf8_lossy(answer.bytes()).trim_end().to_owned())
        };
        let version = ask("SELECT version()")?;
        let timezone = ask("SELECT serverTimezone()")?;
        let guard = Guard::new(&mut first)?;
        Ok(Self { library, arguments, version, timezone, guard, _first: std::sync::Mutex::new(first), _lock: lock })
    }

    /// A session of its own for one request: nothing of an earlier request can be in it. `readonly` is ClickHouse's
    /// setting: 2 forbids writes but not settings.
    pub fn session(&self, access: Access, readonly: bool) -> Result<Connection, EngineError> {
        let mut arguments = self.arguments.clone();
        if readonly || access == Access::Read {
            arguments.push("--readonly=2".to_owned());
        }
        let refused = || EngineError::internal("the engine opens no further session");
        let mut connection = self.library.connect(&arguments).ok_or_else(refused)?;
        if access != Access::Admin {
            connection.query(b"SET ROLE NONE", "Null", &[])?;
        }
        Ok(connection)
    }
}

fn lock(folder: &Path) -> Result<File, BootError> {
    let error = |source| BootError::Folder { path: folder.to_owned(), source };
    let file = File::create(folder.join("boathouse.lock")).map_err(error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BootError::Locked(folder.to_owned())),
        Err(TryLockError::Error(e)) => Err(error(e)),
    }
}

fn write_config(folder: &Path, memory_limit: u64) -> std::io::Result<PathBuf> {
    let dir = folder.join("boathouse-config");
    fs::create_dir_all(&dir)?;
    let users = dir.join("users.xml");
    let config = dir.join("config.xml");
    write_private(&users, &users_xml())?;
    write_private(&config, &config_xml(&users, memory_limit))?;
    Ok(config)
}

/// Writes down the database `default`, as the engine would have. A folder that an engine with the overlay has used
/// keeps its tables: their database is the same, found by the link to its store.
fn write_default_database(folder: &Path) -> std::io::Result<()> {
    let metadata = folder.join("metadata");
    let definition = metadata.join("default.sql");
    if definition.exists() {
        return Ok(());
    }
    fs::create_dir_all(&metadata)?;
    let store = fs::read_link(metadata.join("default")).ok();
    let known = store.and_then(|store| uuid::Uuid::parse_str(store.file_name()?.to_str()?).ok());
    let id = known.unwrap_or_else(uuid::Uuid::new_v4);
    let written = metadata.join("default.sql.new");
    fs::write(&written, format!("ATTACH DATABASE _ UUID '{id}'\nENGINE = Atomic\n"))?;
    fs::rename(written, definition)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn config_xml(users: &Path, memory_limit: u64) -> String {
    // Caches in proportion: the engine's own defaults are made for a machine of its own.
    let mark_cache = memory_limit / 8;
    format!(
        "<clickhouse>
  <users_config>{}</users_config>
  <default_database></default_database>
  <database>default</database>
  <max_server_memory_usage>{memory_limit}</max_server_memory_usage>
  <mark_cache_size>{mark_cache}</mark_cache_size>
  <primary_index_cache_size>{mark_cache}</primary_index_cache_size>
  <access_control_improvements>
    <table_engines_require_grant>true</table_engines_require_grant>
  </access_control_improvements>
</clickhouse>
",
        xml_text(&users.to_string_lossy())
    )
}

fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn users_xml() -> String {
    let frozen: String = FROZEN_SETTINGS.iter().map(|s| format!("      <{s}><readonly/></{s}>\n")).collect();
    format!(
        "<clickhouse>
  <profiles>
    <default>
      <constraints>
{frozen}      </constraints>
    </default>
  </profiles>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, dictGet ON *.*</query>
        <query>REVOKE CREATE ARBITRARY TEMPORARY TABLE, CREATE DICTIONARY, CREATE FUNCTION, SHOW ACCESS ON *.*</query>
        <query>GRANT admin</query>
      </grants>
    </default>
  </users>
  <roles>
    <admin>
      <grants>
        <query>GRANT CHECK, SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, BACKUP, KILL QUERY, SYSTEM, dictGet ON *.*</query>
        <query>REVOKE CREATE ARBITRARY TEMPORARY TABLE, CREATE DICTIONARY ON *.*</query>
      </grants>
    </admin>
  </roles>
  <quotas><default></default></quotas>
</clickhouse>
"
    )
}
