//! The console: web pages and the API under `/api/v1`, on `console.listen`.
//!
//! Pages are rendered on the server and readable without JavaScript; with it, the parts of a page that change are sent
//! as server-sent events ([`live`]). What the stream does is read from the board, what the batch does from its history,
//! what is stored from the tables. The console has threads of its own, of a lower priority, and asks no actor.
//!
//! *Architecture invariant*: every request but health, sign-in and assets passes [`gate`], which knows the caller, their
//! role, and the token that a change must bring along. A page cannot forget to ask.

pub(crate) mod access;
mod api;
mod assets;
pub(crate) mod audit;
mod completion;
mod days;
mod desk;
mod draw;
mod events;
mod gate;
mod live;
mod logs;
mod meter;
mod notices;
mod pages;
mod points;
mod problem;
mod query;
mod range;
mod rates;
mod served;
mod server;
mod shared;
mod tables;
mod tap;
mod tls;
mod traces;
mod view;
pub mod words;

pub use access::{FIRST_USER, Role, Users};
pub(crate) use gate::UID_HEADER;
pub use server::{Console, ConsoleError, Given};
