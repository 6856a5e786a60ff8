//! Dead letters: the records that silver refuses, or will. Which there are, which of them are resolved, and how one is
//! sent again, corrected.
//!
//! Nothing is stored about a letter. It is a row of Bronze that is `unparsed` or `future`, or a row that silver has
//! refused; it is *resolved* when an `ok` or `late` row that is not itself refused bears its origin in the header
//! [`ORIGIN`]. So the command and the console say the same, and a lost machine loses no answer.
//!
//! [`redrive::Redriver`] prepares a corrected event (what it would be, by the pipeline's own decoder and rules) and sends
//! it; [`edit`] is pure.

pub mod edit;
mod find;
mod foresee;
mod in_flight;
pub mod redrive;
mod resolved;
mod row;
mod send;

pub use find::{Search, State, Status};
pub(crate) use find::{by_reason, record};
pub use foresee::Foreseen;
pub use resolved::Resolutions;
pub(crate) use resolved::resolutions;
pub(crate) use row::{Letter, bytes, headers, row_as_json, text};

/// The header that names the record which an event corrects: `topic/generation/partition/offset`.
pub const ORIGIN: &str = "boathouse-origin";

use crate::batch::locate::Place;
use crate::trace::Question;

/// The place that a text names: `topic/generation/partition/offset`, or without the generation, which is then -1 and
/// means the newest.
pub fn place(text: &str) -> anyhow::Result<Place> {
    match Question::read(text) {
        Question::Place(place) => Ok(place),
        Question::EventId(_) => Err(anyhow::anyhow!(
            "`{text}` is no record; write topic/generation/partition/offset, as `boathouse dead-letters list` prints it"
        )),
    }
}
