//! Whether a bucket's store keeps one writer from overwriting what another has put: exactly-once stands on it.

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use uuid::Uuid;

/// What a store does with a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// The second write of a name is refused.
    Kept,
    /// The second write of a name replaces the first, as if no condition were set.
    Ignored,
}

/// Writes a small object twice below `folder` on condition that there is none, and takes it away.
pub async fn conditional_writes(store: &dyn ObjectStore, folder: &Path) -> Result<Conditional, Error> {
    let path = folder.clone().join(format!("_probe_{}", Uuid::new_v4()));
    let put =
        async |text: &'static [u8]| store.put_opts(&path, PutPayload::from_static(text), PutMode::Create.into()).await;
    put(b"first").await?;
    let second = put(b"second").await;
    store.delete(&path).await?;
    match second {
        Ok(_) => Ok(Conditional::Ignored),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Conditional::Kept),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn a_store_that_keeps_its_promise_is_told_and_left_as_it_was() {
        let store = InMemory::new();
        assert_eq!(conditional_writes(&store, &Path::from("lake")).await.unwrap(), Conditional::Kept);
        assert!(store.list(None).try_next().await.unwrap().is_none(), "the probe is taken away");
    }
}
