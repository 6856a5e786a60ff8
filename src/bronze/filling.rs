//! What the file being filled does to its partitions, and which flush makes what durable. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Advance, BronzeError};
use crate::event::Batch;
use crate::kafka::Source;

/// Where each partition in a file stands after it.
#[derive(Debug, Default)]
pub struct Advances {
    by_source: HashMap<Arc<Source>, Advance>,
}

impl Advances {
    /// A batch goes into the file. It must go on where the file already brings its partition: a partition that left
    /// undrained and came back begins again at Bronze's position, and its records would be in the file twice.
    pub fn extend(&mut self, batch: &Batch) -> Result<(), BronzeError> {
        match self.by_source.get_mut(&batch.source) {
            None => {
                let advance = Advance {
                    source: batch.source.clone(),
                    from: batch.from,
                    next_offset: batch.next,
                    mark: batch.mark,
                };
                self.by_source.insert(batch.source.clone(), advance);
            }
            Some(advance) if advance.next_offset == batch.from => {
                (advance.next_offset, advance.mark) = (batch.next, batch.mark);
            }
            Some(advance) => {
                return Err(BronzeError::Expired {
                    what: format!(
                        "the file being filled holds {} up to offset {}, and a batch begins at {}",
                        batch.source, advance.next_offset, batch.from
                    ),
                });
            }
        }
        Ok(())
    }

    /// One per partition, in no order.
    pub fn into_vec(self) -> Vec<Advance> {
        self.by_source.into_values().collect()
    }
}

/// Numbers of flushes: which one makes durable what has been appended so far.
#[derive(Debug, Default)]
pub struct Flushes {
    /// Number of the flush being written, or of the last one.
    number: u64,
    writing: bool,
}

impl Flushes {
    pub fn writing(&self) -> bool {
        self.writing
    }

    /// Number of the flush that will write the file being filled.
    pub fn next(&self) -> u64 {
        self.number + 1
    }

    /// The flush after whose end everything appended so far is durable; none if everything is. `filling`: whether a
    /// file is being filled.
    pub fn awaited(&self, filling: bool) -> Option<u64> {
        match filling {
            true => Some(self.next()),
            false => self.writing.then_some(self.number),
        }
    }

    /// The file being filled is frozen and written; the number of this flush. One at a time.
    pub fn begin(&mut self) -> u64 {
        self.writing = true;
        self.number += 1;
        self.number
    }

    /// What was being written is written, or has failed.
    pub fn end(&mut self) {
        self.writing = false;
    }

    /// Whether a flush has been begun and has ended.
    pub fn ended(&self, number: u64) -> bool {
        number < self.number || (number == self.number && !self.writing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_durable_after_the_flush_that_is_awaited() {
        let mut flushes = Flushes::default();
        assert_eq!(flushes.awaited(false), None);
        assert_eq!(flushes.awaited(true), Some(1));
        assert_eq!(flushes.begin(), 1);
        assert_eq!((flushes.awaited(false), flushes.awaited(true)), (Some(1), Some(2)));
        assert!(!flushes.ended(1));
        flushes.end();
        assert_eq!(flushes.awaited(false), None);
        assert!(flushes.ended(1) && !flushes.ended(2));
    }
}
