//! An address of the lakehouse or of a table in it.

use std::fmt;
use std::path::{Path, PathBuf};

use deltalake::logstore::{ObjectStoreRef, store_for};
use futures::TryStreamExt;
use url::Url;

use super::bucket::SCHEMES;

/// The folder of a table's log.
const LOG: &str = "_delta_log";

/// Why an address cannot be used, or its storage not be asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("`{uri}` is not a local file address: a folder is written file:///folder")]
    NotLocal { uri: String },
    #[error("`{uri}`: there are local folders and s3:// buckets; {scheme}:// is not known")]
    Scheme { uri: String, scheme: String },
    #[error("`{uri}` names no bucket: write s3://bucket/path")]
    NoBucket { uri: String },
    #[error("`{uri}` holds a user or password: set lakehouse.options")]
    Login { uri: String },
    #[error("{} cannot be looked at: {cause}", place)]
    Unreachable { place: String, cause: String },
}

/// A folder, or a path in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Folder(PathBuf),
    /// Ends in a slash.
    Bucket(Url),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

impl Place {
    /// What an address means: a path, `file:///path` or `s3://bucket/path`.
    pub fn of(uri: &str) -> Result<Self, StorageError> {
        match Url::parse(uri) {
            Ok(url) if url.scheme() == "file" => {
                url.to_file_path().map(Self::Folder).map_err(|()| StorageError::NotLocal { uri: uri.into() })
            }
            Ok(url) if SCHEMES.contains(&url.scheme()) => {
                if url.host_str().is_none_or(str::is_empty) {
                    return Err(StorageError::NoBucket { uri: uri.into() });
                }
                if !url.username().is_empty() || url.password().is_some() {
                    // Not the address itself: it holds a secret.
                    return Err(StorageError::Login { uri: format!("{}://…", url.scheme()) });
                }
                Ok(Self::Bucket(slashed(url)))
            }
            // A one-letter scheme is a drive, and a plain path has none.
            Ok(url) if url.scheme().len() > 1 => {
                Err(StorageError::Scheme { uri: uri.into(), scheme: url.scheme().into() })
            }
            _ => Ok(Self::Folder(uri.into())),
        }
    }

    /// A place below this one.
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Folder(path) => Self::Folder(path.join(name)),
            Self::Bucket(url) => {
                let mut url = url.clone();
                url.set_path(&format!("{}{name}/", url.path()));
                Self::Bucket(url)
            }
        }
    }

    /// The folder, where it is one on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket(_) => None,
        }
    }

    /// The address as delta-rs takes it, absolute.
    pub fn url(&self) -> Result<Url, StorageError> {
        match self {
            Self::Bucket(url) => Ok(url.clone()),
            Self::Folder(path) => {
                let absolute =
                    path.canonicalize().or_else(|_| std::path::absolute(path)).map_err(|e| self.failed(e))?;
                Url::from_directory_path(absolute).map_err(|()| StorageError::NotLocal { uri: self.to_string() })
            }
        }
    }

    /// The names of the Delta tables right below this place, in order. A place that does not exist has none.
    pub async fn tables(&self) -> Result<Vec<String>, StorageError> {
        let mut names = match self {
            Self::Folder(path) => folders_with_log(path),
            Self::Bucket(_) => self.tables_in_bucket().await?,
        };
        names.sort();
        Ok(names)
    }

    /// Whether a Delta table is at this place.
    pub async fn is_table(&self) -> Result<bool, StorageError> {
        match self {
            Self::Folder(path) => Ok(path.join(LOG).is_dir()),
            Self::Bucket(_) => {
                let store = self.store()?;
                let first = store.list(Some(&LOG.into())).try_next().await;
                first.map(|found| found.is_some()).map_err(|e| self.failed(e))
            }
        }
    }

    async fn tables_in_bucket(&self) -> Result<Vec<String>, StorageError> {
        let below = self.store()?.list_with_delimiter(None).await.map_err(|e| self.failed(e))?;
        let mut names = Vec::new();
        for prefix in below.common_prefixes {
            let Some(name) = prefix.filename() else { continue };
            if self.join(name).is_table().await? {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The store, as seen from this place. A bucket's options are those that the process is connected with.
    pub fn store(&self) -> Result<ObjectStoreRef, StorageError> {
        store_for(&self.url()?, [("", ""); 0]).map_err(|e| self.failed(e))
    }

    fn failed(&self, cause: impl fmt::Display) -> StorageError {
        StorageError::Unreachable { place: self.to_string(), cause: cause.to_string() }
    }
}

fn slashed(mut url: Url) -> Url {
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

fn folders_with_log(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|e| e.path().join(LOG).is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Place {
        Place::of(uri).unwrap()
    }

    #[test]
    fn addresses_are_folders_or_buckets() {
        assert_eq!(of("/data/lakehouse"), Place::Folder("/data/lakehouse".into()));
        assert_eq!(of("data/lakehouse"), Place::Folder("data/lakehouse".into()));
        assert_eq!(of("file:///data/lakehouse"), Place::Folder("/data/lakehouse".into()));
        assert_eq!(of("s3://bucket/lake/").join("bronze").join("e").to_string(), "s3://bucket/lake/bronze/e");
        assert_eq!(of("s3://bucket").join("bronze").to_string(), "s3://bucket/bronze");
        assert_eq!(of("s3a://bucket/lake").url().unwrap().as_str(), "s3a://bucket/lake/");
    }

    #[test]
    fn other_addresses_are_refused_with_what_to_write() {
        let refused = |uri: &str| Place::of(uri).unwrap_err().to_string();
        assert!(refused("gs://bucket/lake").contains("gs:// is not known"));
        assert!(refused("s3:///lake").contains("names no bucket"));
        let login = refused("s3://key:s3cret@bucket/lake");
        assert!(login.contains("lakehouse.options") && !login.contains("s3cret"), "{login}");
    }
}
