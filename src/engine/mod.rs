//! The embedded ClickHouse server: the real engine (libchdb, in this process) behind ClickHouse's HTTP interface.
//!
//! Follow one request:
//!
//! 1. [`http`]: an actix-web worker reads the head; [`users`] says who asks; a place among the running statements is
//!    taken or the request is refused; a thread is started. No call of the engine runs on a worker.
//! 2. [`request`] reads parameters and headers ([`form`] those in a multipart body); [`body`] undoes compression ([`blocks`] is ClickHouse's own framing).
//! 3. [`execute`], on the request's thread: [`statement`] cuts the text into statement and data ([`lexer`]);
//!    [`boot`] gives a session of its own to every request, so no setting, database or role outlives it.
//! 4. [`guard`] refuses what reaches beyond the tables.
//! 5. [`ffi`] runs it; large results come in chunks ([`chunked`] joins them) and leave through [`reply`].
//!
//! A session costs 0.2 ms, less than cleaning a used one would; that is why there is no pool of them.
//!
//! This room knows nothing of the rest of Boathouse, which reaches ClickHouse over HTTP as it would a real server.

mod blocks;
mod body;
pub mod boot;
mod chunked;
mod error;
mod execute;
mod ffi;
mod form;
pub mod guard;
pub mod http;
pub(crate) mod lexer;
mod reply;
mod request;
mod statement;
pub mod users;

/// Ends the process at once, without destructors and exit handlers: the engine's own shutdown may crash while tables are
/// open. Call it when no statement runs any more.
pub fn leave(code: i32) -> ! {
    ffi::leave(code)
}
