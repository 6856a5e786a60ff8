//! One correction for all letters that a search finds: which of them could be sent so, and which stay as they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Edit, Prepared, Redriver, Sent};
use crate::config::Pipeline;
use crate::letters::{Search, State};

/// Letters that one go takes at most.
pub const LETTERS_MAX: usize = 10_000;
/// Letters of each kind that an answer or a page shows.
pub const SHOWN: usize = 20;

/// A letter that stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// `topic/generation/partition/offset`.
    pub source: String,
    pub why: String,
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Redriven {
    pub sent: Vec<Sent>,
    pub left: Vec<Left>,
}

/// What a correction makes of the letters that were found.
#[derive(Debug)]
pub struct Sorted {
    /// Could be sent, the oldest first.
    pub fit: Vec<Prepared>,
    pub left: Vec<Left>,
    /// There are more than one go takes.
    pub at_limit: bool,
}

impl Sorted {
    /// How many there are of each, and the first of them.
    pub fn json(&self) -> Value {
        json!({
            "would_send_count": self.fit.len(),
            "would_send": self.fit.iter().take(SHOWN).map(Prepared::json).collect::<Vec<_>>(),
            "left_count": self.left.len(),
            "left": self.left.iter().take(SHOWN).collect::<Vec<_>>(),
            "more": self.at_limit,
        })
    }
}

impl Redriver {
    /// Corrects all open letters that a search finds; with `force` the resolved ones, too, and what would be a dead letter
    /// again is none that stays. Nothing is sent.
    pub(crate) async fn sort(
        &mut self,
        search: Search,
        force: bool,
        edit: impl Fn(&Pipeline) -> anyhow::Result<Edit>,
    ) -> anyhow::Result<Sorted> {
        let search = Search { state: (!force).then_some(State::Open), limit: LETTERS_MAX, ..search };
        let letters = search.newest(&self.config, &self.lake).await?;
        let at_limit = letters.len() == LETTERS_MAX;
        let mut sorted = Sorted { fit: Vec::new(), left: Vec::new(), at_limit };
        // The oldest first, as they came.
        for letter in letters.into_iter().rev() {
            let source = letter.source();
            let edit = edit(self.pipeline(&letter.pipeline)?)?;
            match self.prepare(letter, &edit) {
                Ok(prepared) if force || prepared.objections().is_empty() => sorted.fit.push(prepared),
                Ok(prepared) => sorted.left.push(Left { source, why: prepared.foreseen.text }),
                Err(error) => sorted.left.push(Left { source, why: format!("{:#}", error.root_cause()) }),
            }
        }
        Ok(sorted)
    }
}
