//! The C interface of libchdb: the engine room's only file with `unsafe` code.
//!
//! The library is loaded once and never unloaded (its threads outlive every call). A [`Connection`] runs one statement
//! at a time and is used by one thread at a time; results, streams and inserts borrow it, so the compiler keeps the
//! engine's rule "no other statement while a stream is open".

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use super::error::EngineError;

type Handle = *mut c_void;
type QueryN = unsafe extern "C" fn(
    Handle,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> Handle;
type Counter = unsafe extern "C" fn(Handle) -> u64;

/// What went wrong before the engine could be asked anything.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the engine library {path} cannot be loaded: {source}")]
    Open { path: PathBuf, source: libloading::Error },
    #[error("the engine library {path} lacks `{symbol}`; boathouse-clickhouse needs libchdb 26.7.3")]
    Symbol { path: PathBuf, symbol: &'static str },
}

/// The functions of libchdb that are used here, resolved once.
pub struct Library {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Handle,
    close: unsafe extern "C" fn(*mut Handle),
    query: QueryN,
    stream_query: QueryN,
    stream_fetch: unsafe extern "C" fn(Handle, Handle) -> Handle,
    stream_cancel: unsafe extern "C" fn(Handle, Handle),
    insert: QueryN,
    insert_error: unsafe extern "C" fn(Handle) -> *const c_char,
    insert_append: unsafe extern "C" fn(Handle, *const c_void, usize) -> c_int,
    insert_done: unsafe extern "C" fn(Handle) -> Handle,
    insert_destroy: unsafe extern "C" fn(Handle),
    result_buffer: unsafe extern "C" fn(Handle) -> *const u8,
    result_length: unsafe extern "C" fn(Handle) -> usize,
    result_error: unsafe extern "C" fn(Handle) -> *const c_char,
    result_elapsed: unsafe extern "C" fn(Handle) -> f64,
    read_rows: Counter,
    read_bytes: Counter,
    result_rows: Counter,
    written_rows: Counter,
    written_bytes: Counter,
    result_destroy: unsafe extern "C" fn(Handle),
    classify: unsafe extern "C" fn(Handle, *const c_char, usize, *const c_char, usize, *mut RawAnalysis) -> c_int,
}

#[repr(C)]
struct RawAnalysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

impl Library {
    /// Loads the library for the rest of the process's life.
    pub fn load(path: &Path) -> Result<&'static Library, LoadError> {
        // SAFETY: loading runs the library's initialisers. It is the pinned libchdb, which is made to be loaded into a
        // running process; it is leaked below, so no code or static of it is ever unmapped.
        let lib = unsafe { libloading::os::unix::Library::open(Some(path), libc::RTLD_NOW | libc::RTLD_LOCAL) }
            .map_err(|source| LoadError::Open { path: path.to_owned(), source })?;
        let lib: &'static _ = Box::leak(Box::new(lib));

        macro_rules! symbol {
            ($name:literal) => {{
                // SAFETY: the type is that of the field which the value is stored in, written after chdb.h of 26.7.3;
                // the library is never unloaded, so the pointer stays valid.
                let found = unsafe { lib.get(concat!($name, "\0").as_bytes()) };
                *found.map_err(|_| LoadError::Symbol { path: path.to_owned(), symbol: $name })?
            }};
        }

        let set_signal_handlers: unsafe extern "C" fn(c_int) = symbol!("chdb_set_signal_handlers_enabled");
        // SAFETY: called before the first connection, as chdb.h asks. The engine then leaves SIGTERM and SIGINT alone.
        unsafe { set_signal_handlers(0) };

        Ok(Box::leak(Box::new(Library {
            connect: symbol!("chdb_connect"),
            close: symbol!("chdb_close_conn"),
            query: symbol!("chdb_query_with_params_n"),
            stream_query: symbol!("chdb_stream_query_with_params_n"),
            stream_fetch: symbol!("chdb_stream_fetch_result"),
            stream_cancel: symbol!("chdb_stream_cancel_query"),
            insert: symbol!("chdb_stream_insert_with_params_n"),
            insert_error: symbol!("chdb_stream_insert_error"),
            insert_append: symbol!("chdb_stream_append"),
            insert_done: symbol!("chdb_stream_done"),
            insert_destroy: symbol!("chdb_destroy_insert_stream"),
            result_buffer: symbol!("chdb_result_buffer"),
            result_length: symbol!("chdb_result_length"),
            result_error: symbol!("chdb_result_error"),
            result_elapsed: symbol!("chdb_result_elapsed"),
            read_rows: symbol!("chdb_result_storage_rows_read"),
            read_bytes: symbol!("chdb_result_storage_bytes_read"),
            result_rows: symbol!("chdb_result_rows_read"),
            written_rows: symbol!("chdb_result_rows_written"),
            written_bytes: symbol!("chdb_result_bytes_written"),
            result_destroy: symbol!("chdb_destroy_query_result"),
            classify: symbol!("chdb_classify_query_n"),
        })))
    }

    /// Opens a connection; the first one of the process boots the engine on its `--path=` and `--config-file=`.
    /// `None` when the engine refuses, which it explains on stderr only.
    pub fn connect(&'static self, args: &[String]) -> Option<Connection> {
        let words: Vec<CString> = std::iter::once("clickhouse")
            .chain(args.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<_, _>>()
            .ok()?;
        let mut argv: Vec<*mut c_char> = words.iter().map(|w| w.as_ptr().cast_mut()).collect();
        let argc = c_int::try_from(argv.len()).ok()?;
        argv.push(ptr::null_mut());
        // SAFETY: argv holds argc NUL-terminated strings and a final null, all alive during the call; the engine only
        // reads them.
        let root = unsafe { (self.connect)(argc, argv.as_mut_ptr()) };
        if root.is_null() {
            return None;
        }
        Some(Connection { lib: self, root })
    }
}

/// Query parameters (`param_x` of the HTTP interface): name and value as text.
pub type Params = [(String, String)];

/// The four parallel arrays in which the C interface takes query parameters.
struct RawParams {
    names: Vec<*const c_char>,
    name_lengths: Vec<usize>,
    values: Vec<*const c_char>,
    value_lengths: Vec<usize>,
}

impl RawParams {
    /// Points into `params`, which must outlive the call that uses it.
    fn new(params: &Params) -> Self {
        Self {
            names: params.iter().map(|(n, _)| n.as_ptr().cast()).collect(),
            name_lengths: params.iter().map(|(n, _)| n.len()).collect(),
            values: params.iter().map(|(_, v)| v.as_ptr().cast()).collect(),
            value_lengths: params.iter().map(|(_, v)| v.len()).collect(),
        }
    }
}

/// One session of the engine: its own settings, roles and current database.
pub struct Connection {
    lib: &'static Library,
    root: *mut Handle,
}

// SAFETY: the engine lets any thread use a connection as long as only one does at a time; every method that runs
// something takes `&mut self`, and the type is not Sync.
unsafe impl Send for Connection {}

/// What a text of SQL is, by the engine's own parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Analysis {
    /// Statements in the text; 0 when it does not parse.
    pub statements: u32,
    pub class: Class,
}

/// What a statement does to state that outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// SELECT, SHOW, DESCRIBE, EXPLAIN, EXISTS, CHECK.
    ReadOnly,
    /// Changes rows or tables of a database.
    Mutating,
    /// Functions, users, named collections, the `system` database.
    MutatingGlobal,
    /// USE, SET, ATTACH, DETACH, SYSTEM, BACKUP, KILL, INTO OUTFILE, INSERT INTO FUNCTION.
    Control,
    /// Does not parse, or is not known to the classifier.
    Unknown,
}

impl Connection {
    fn handle(&self) -> Handle {
        // SAFETY: `root` came from chdb_connect, is not null and is freed in Drop only; the first word behind it is the
        // handle that the other functions take.
        unsafe { *self.root }
    }

    fn call(&mut self, function: QueryN, sql: &[u8], format: &str, params: &Params) -> Handle {
        let raw = RawParams::new(params);
        // SAFETY: every pointer is valid for its length during the call and the engine copies what it keeps; `&mut self`
        // makes this the only call on the connection.
        unsafe {
            function(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                raw.names.as_ptr(),
                raw.name_lengths.as_ptr(),
                raw.values.as_ptr(),
                raw.value_lengths.as_ptr(),
                params.len(),
            )
        }
    }

    /// Runs a statement and holds its whole result in memory.
    pub fn query(&mut self, sql: &[u8], format: &str, params: &Params) -> Result<QueryResult, EngineError> {
        let raw = self.call(self.lib.query, sql, format, params);
        QueryResult::take(self.lib, raw)
    }

    /// Starts a SELECT whose result comes in chunks of a few hundred kB. Anything else is refused with code 36 before
    /// it has run.
    pub fn stream(&mut self, sql: &[u8], format: &str, params: &Params) -> Result<QueryStream<'_>, EngineError> {
        let raw = self.call(self.lib.stream_query, sql, format, params);
        let head = QueryResult::take(self.lib, raw)?;
        Ok(QueryStream { connection: self, head, done: false })
    }

    /// Starts an INSERT whose data follows by [`InsertStream::append`]. `sql` carries neither FORMAT nor data.
    pub fn insert(&mut self, sql: &[u8], format: &str, params: &Params) -> Result<InsertStream<'_>, EngineError> {
        let raw = self.call(self.lib.insert, sql, format, params);
        if raw.is_null() {
            return Err(EngineError::internal("the engine opened no insert"));
        }
        let stream = InsertStream { connection: self, raw };
        // SAFETY: `raw` is a live insert stream.
        let error = unsafe { text((stream.connection.lib.insert_error)(raw)) };
        match error {
            Some(message) => Err(EngineError::parse(&message)),
            None => Ok(stream),
        }
    }

    /// Parses `sql` with this session's parser, without running it.
    pub fn classify(&mut self, sql: &[u8]) -> Analysis {
        let size = size_of::<RawAnalysis>() as u32;
        let mut raw = RawAnalysis { struct_size: size, statement_count: 0, flags: 0, query_class: 4 };
        // SAFETY: `raw` is the struct of chdb.h with its size filled in; a null target database is allowed.
        let state =
            unsafe { (self.lib.classify)(self.handle(), sql.as_ptr().cast(), sql.len(), ptr::null(), 0, &mut raw) };
        let class = match (state, raw.query_class) {
            (0, 0) => Class::ReadOnly,
            (0, 1) => Class::Mutating,
            (0, 2) => Class::MutatingGlobal,
            (0, 3) => Class::Control,
            _ => Class::Unknown,
        };
        Analysis { statements: raw.statement_count, class }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: streams borrow the connection, so none is open; closed exactly once.
        unsafe { (self.lib.close)(self.root) };
    }
}

/// Copies a NUL-terminated text that the engine owns; `None` for a null pointer.
///
/// # Safety
/// `pointer` must be null or a NUL-terminated string that lives during the call.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// Rows and bytes of a statement, as `X-ClickHouse-Summary` reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Statistics {
    pub read_rows: u64,
    pub read_bytes: u64,
    pub result_rows: u64,
    pub written_rows: u64,
    pub written_bytes: u64,
    pub elapsed_s: f64,
}

impl Statistics {
    /// Adds what a further chunk of the same statement reports.
    pub fn add(&mut self, more: Statistics) {
        self.read_rows += more.read_rows;
        self.read_bytes += more.read_bytes;
        self.result_rows += more.result_rows;
        self.written_rows += more.written_rows;
        self.written_bytes += more.written_bytes;
        self.elapsed_s += more.elapsed_s;
    }
}

/// A result, or one chunk of one, in the engine's memory until dropped.
pub struct QueryResult {
    lib: &'static Library,
    raw: Handle,
}

// SAFETY: a materialised result belongs to no thread and to no connection; it is only read and freed.
unsafe impl Send for QueryResult {}

impl QueryResult {
    /// Takes ownership of a result handle, or turns it into the error it holds.
    fn take(lib: &'static Library, raw: Handle) -> Result<Self, EngineError> {
        if raw.is_null() {
            return Err(EngineError::internal("the engine returned no result"));
        }
        let result = Self { lib, raw };
        // SAFETY: `raw` is a live result.
        match unsafe { text((lib.result_error)(raw)) } {
            Some(message) => Err(EngineError::parse(&message)),
            None => Ok(result),
        }
    }

    /// The formatted rows.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer holds `length` bytes and lives as long as the result.
        unsafe {
            let length = (self.lib.result_length)(self.raw);
            let buffer = (self.lib.result_buffer)(self.raw);
            if length == 0 || buffer.is_null() { &[] } else { std::slice::from_raw_parts(buffer, length) }
        }
    }

    pub fn statistics(&self) -> Statistics {
        // SAFETY: `raw` is a live result; these functions only read it.
        unsafe {
            Statistics {
                read_rows: (self.lib.read_rows)(self.raw),
                read_bytes: (self.lib.read_bytes)(self.raw),
                result_rows: (self.lib.result_rows)(self.raw),
                written_rows: (self.lib.written_rows)(self.raw),
                written_bytes: (self.lib.written_bytes)(self.raw),
                elapsed_s: (self.lib.result_elapsed)(self.raw),
            }
        }
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        // SAFETY: the handle is owned here and freed once.
        unsafe { (self.lib.result_destroy)(self.raw) };
    }
}

/// A running SELECT. Dropping it before the end cancels the query.
pub struct QueryStream<'c> {
    connection: &'c mut Connection,
    head: QueryResult,
    done: bool,
}

impl QueryStream<'_> {
    /// The next chunk; `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<QueryResult>, EngineError> {
        if self.done {
            return Ok(None);
        }
        let lib = self.connection.lib;
        // SAFETY: both handles are live, and `&mut self` serialises the fetches.
        let raw = unsafe { (lib.stream_fetch)(self.connection.handle(), self.head.raw) };
        let chunk = QueryResult::take(lib, raw).inspect_err(|_| self.done = true)?;
        if chunk.bytes().is_empty() {
            self.done = true;
            return Ok(None);
        }
        Ok(Some(chunk))
    }
}

impl Drop for QueryStream<'_> {
    fn drop(&mut self) {
        if !self.done {
            // SAFETY: the stream is live and unfinished; its head is freed afterwards, by its own Drop.
            unsafe { (self.connection.lib.stream_cancel)(self.connection.handle(), self.head.raw) };
        }
    }
}

/// A running INSERT. Dropping it without [`InsertStream::finish`] cancels it.
pub struct InsertStream<'c> {
    connection: &'c mut Connection,
    raw: Handle,
}

impl InsertStream<'_> {
    /// Hands over the next bytes of the data; blocks while the engine is behind. `false` when the insert has already
    /// failed: [`InsertStream::finish`] then tells why.
    pub fn append(&mut self, data: &[u8]) -> bool {
        // SAFETY: the stream is live; the engine copies the bytes.
        unsafe { (self.connection.lib.insert_append)(self.raw, data.as_ptr().cast(), data.len()) == 0 }
    }

    /// Ends the data and waits until the rows are in the table.
    pub fn finish(self) -> Result<Statistics, EngineError> {
        // SAFETY: the stream is live; it is destroyed by Drop after this call, as chdb.h asks.
        let raw = unsafe { (self.connection.lib.insert_done)(self.raw) };
        QueryResult::take(self.connection.lib, raw).map(|r| r.statistics())
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: destroyed exactly once; the engine cancels it first when it was not finished.
        unsafe { (self.connection.lib.insert_destroy)(self.raw) };
    }
}

/// Ends the process at once, without destructors and exit handlers.
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}
