//! Where in its file a value stands, for messages about it.

use std::collections::{BTreeMap, BTreeSet};

use super::error::Origin;
use super::tree::Node;

/// The places of a file's values, by path (`kafka.brokers`, `field[0].name`).
#[derive(Debug, Default)]
pub(super) struct Places {
    origins: BTreeMap<String, Origin>,
    /// Values that were wrong and are not what the file says.
    pub broken: BTreeSet<String>,
}

impl Places {
    /// Of a file's tree.
    pub fn of(node: &Node) -> Self {
        let mut places = Vec::new();
        node.places("", &mut places);
        Self { origins: places.into_iter().collect(), broken: BTreeSet::new() }
    }

    /// Where a value stands; where it is a default, the place of what is around it.
    pub fn near(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return origin.clone();
            }
            path = path.rfind(['.', '[']).map_or("", |i| &path[..i]);
            if path.is_empty() {
                return self.origins.get("").cloned().unwrap_or_default();
            }
        }
    }

    /// Where a value itself stands; nowhere, if it is a default.
    pub fn of_value(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or_default()
    }
}
