//! When a view changes over to a new definition.

use std::sync::Arc;

use super::error::Error;
use super::store::WindowStore;
use crate::kafka::Source;
use crate::window::AggregatePlan;

/// How far every partition's totals under one definition are, beside Bronze.
#[derive(Debug)]
pub struct Reach {
    reached: Vec<(Source, i64)>,
}

impl Reach {
    /// Asks ClickHouse. Bronze's positions must have been read before: what realtime has reached later is compared with
    /// what Bronze had then.
    pub async fn of(store: &impl WindowStore, plan: &AggregatePlan) -> Result<Self, Error> {
        Ok(Self { reached: store.positions(plan).await? })
    }

    fn at(&self, source: &Source) -> Option<i64> {
        self.reached.iter().find(|(s, _)| s == source).map(|(_, next)| *next)
    }

    /// Partitions of earlier generations, which nobody reads any more, that have no totals under this definition yet.
    pub fn uncounted<'a>(
        &'a self,
        bronze: &'a [(Arc<Source>, i64)],
        generation: i32,
    ) -> impl Iterator<Item = &'a Arc<Source>> {
        bronze.iter().map(|(s, _)| s).filter(move |s| s.generation < generation && self.at(s).is_none())
    }

    /// Whether the totals of every partition of the newest generation reach Bronze's positions; `left_out` are those
    /// that have stopped until somebody decides.
    pub fn is_whole(&self, bronze: &[(Arc<Source>, i64)], generation: i32, left_out: impl Fn(&Source) -> bool) -> bool {
        bronze
            .iter()
            .filter(|(source, _)| source.generation == generation && !left_out(source))
            .all(|(source, next)| self.at(source) >= Some(*next))
    }
}
