//! Buckets, made known to delta-rs.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
    object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use url::Url;

use crate::config::Lakehouse;

/// The schemes that mean a bucket: Hadoop's `s3a` is the same to us.
pub(super) const SCHEMES: [&str; 2] = ["s3", "s3a"];

/// The bucket is the address's.
const BUCKET: [&str; 4] = ["bucket", "bucket_name", "aws_bucket", "aws_bucket_name"];

/// What is wrong with an option, if anything is.
pub fn check_option(name: &str, value: &str) -> Result<(), String> {
    if BUCKET.contains(&name) {
        return Err("cannot be set: `lakehouse.uri` names the bucket".into());
    }
    if ["conditional_put", "aws_conditional_put"].contains(&name) {
        return Err("cannot be set: two writers of one log must see each other".into());
    }
    let key = AmazonS3ConfigKey::from_str(name).map_err(|_| "is no option of the object store".to_string())?;
    // Some values are looked at only when a store is made of them. The error may show a secret: it is not passed on.
    let bucket = AmazonS3Builder::new().with_bucket_name("bucket");
    // With keys, what other ways to credentials want is not looked at; half a pair of keys is no store at all.
    let keys = bucket.clone().with_access_key_id("k").with_secret_access_key("s");
    let is_key = matches!(key, AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey);
    let made = if is_key { keys } else { bucket }.with_config(key, value).build();
    made.map(drop).map_err(|_| "has a value that the object store does not take".to_string())
}

/// Whether one of the two keys is set without the other.
pub fn is_half_a_key(options: &BTreeMap<String, String>) -> bool {
    let has = |name: &str| options.contains_key(name) || options.contains_key(&format!("aws_{name}"));
    has("access_key_id") != has("secret_access_key")
}

/// Makes the addresses of buckets known to delta-rs in this process, to be opened with the lakehouse's options. The
/// latest call has its say.
pub fn connect(lakehouse: &Lakehouse) {
    let buckets = Arc::new(Buckets { options: lakehouse.options.clone(), stores: Mutex::default() });
    for scheme in SCHEMES {
        // A scheme and nothing behind it is an address.
        let Ok(key) = Url::parse(&format!("{scheme}://")) else { continue };
        object_store_factories().insert(key.clone(), buckets.clone());
        logstore_factories().insert(key, buckets.clone());
    }
}

/// The stores of the buckets that were asked for. One store a bucket: its connections serve all tables.
struct Buckets {
    options: BTreeMap<String, String>,
    stores: Mutex<HashMap<String, ObjectStoreRef>>,
}

impl Buckets {
    fn store(&self, url: &Url) -> DeltaResult<ObjectStoreRef> {
        let bucket = url.host_str().ok_or_else(|| DeltaTableError::InvalidTableLocation(url.to_string()))?;
        // A map whose holder panicked is a map still.
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(bucket) {
            return Ok(store.clone());
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        for (name, value) in &self.options {
            builder = builder.with_config(AmazonS3ConfigKey::from_str(name)?, value);
        }
        let store: ObjectStoreRef = Arc::new(builder.build()?);
        stores.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }
}

impl ObjectStoreFactory for Buckets {
    fn parse_url_opts(&self, url: &Url, _: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        Ok((self.store(url)?, Path::from_url_path(url.path())?))
    }
}

impl LogStoreFactory for Buckets {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_by_name_and_value_and_never_shown() {
        assert_eq!(check_option("aws_region", "eu-central-1"), Ok(()));
        assert_eq!(check_option("aws_allow_http", "true"), Ok(()));
        assert_eq!(check_option("aws_endpoint", "http://127.0.0.1:9000"), Ok(()));
        assert_eq!(check_option("aws_access_key_id", "key"), Ok(()));
        assert!(check_option("aws_regoin", "x").unwrap_err().contains("no option"));
        assert!(check_option("bucket", "x").unwrap_err().contains("lakehouse.uri"));
        assert!(check_option("aws_conditional_put", "disabled").is_err());
        let refused = check_option("aws_imdsv1_fallback", "perhaps-s3cret").unwrap_err();
        assert!(!refused.contains("s3cret"), "{refused}");
    }
}
