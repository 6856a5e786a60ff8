//! The bucket of the lakehouse, where it is in one: whether it answers, may be written, and keeps its promises.

use object_store::path::Path;

use super::Finding;
use crate::config::Config;
use crate::remedy;
use crate::storage::{Conditional, Place, conditional_writes};

const CHECK: &str = "lakehouse.uri";

pub(super) async fn check(config: &Config) -> Option<Finding> {
    let place = match Place::of(&config.server.lakehouse.uri) {
        Ok(place @ Place::Bucket(_)) => place,
        _ => return None,
    };
    let failed = |cause: String| {
        let advice = "check lakehouse.options (endpoint, region, keys), the bucket's name and its rights: list, get, put, delete";
        Finding::fail(CHECK, cause, advice)
    };
    let store = match place.store() {
        Ok(store) => store,
        Err(e) => return Some(failed(e.to_string())),
    };
    Some(match conditional_writes(store.as_ref(), &Path::default()).await {
        Ok(Conditional::Kept) => Finding::ok(CHECK, format!("{place} may be written and knows conditional writes")),
        Ok(Conditional::Ignored) => Finding::fail(
            CHECK,
            format!("the store of {place} ignores If-None-Match: two writers would overwrite each other's commits"),
            remedy::CONDITIONAL_WRITES,
        ),
        Err(e) => failed(format!("{place} cannot be written: {e}")),
    })
}
