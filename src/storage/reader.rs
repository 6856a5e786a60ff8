//! A Parquet file of the lakehouse, read by ranges from a thread that may wait.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, mpsc};

use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::Place;

/// Bytes fetched at once where a reader does not say how many it wants: Parquet's page headers.
const AHEAD_BYTES: u64 = 64 << 10;

/// Where a table's data file is.
#[derive(Debug, Clone)]
pub struct FileAt {
    /// The table.
    pub place: Place,
    /// The table's own store.
    pub store: Arc<dyn ObjectStore>,
    /// Below the table.
    pub path: Path,
    /// In bytes.
    pub size: u64,
    /// The runtime that fetches from a bucket; it must have threads of its own.
    pub io: Handle,
}

impl fmt::Display for FileAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place, self.path)
    }
}

impl FileAt {
    /// Opens it: a file of this machine as such, without a store between.
    pub fn open(&self) -> std::io::Result<DataFile> {
        match self.place.folder() {
            Some(folder) => Ok(DataFile::Local(File::open(folder.join(self.path.as_ref()))?.into())),
            None => {
                let (store, path, io) = (self.store.clone(), self.path.clone(), self.io.clone());
                Ok(DataFile::Remote { store, path, size: self.size, io })
            }
        }
    }
}

/// A data file: on this machine, or in a bucket.
#[derive(Clone)]
pub enum DataFile {
    Local(Arc<File>),
    /// Fetched on the runtime of `io`, which must have threads of its own.
    Remote {
        store: Arc<dyn ObjectStore>,
        path: Path,
        size: u64,
        io: Handle,
    },
}

impl Length for DataFile {
    fn len(&self) -> u64 {
        match self {
            Self::Local(file) => Length::len(file.as_ref()),
            Self::Remote { size, .. } => *size,
        }
    }
}

impl ChunkReader for DataFile {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        match self {
            Self::Local(file) => Ok(Box::new(ChunkReader::get_read(file.as_ref(), start)?)),
            Self::Remote { size, .. } => {
                let length = AHEAD_BYTES.min(size.saturating_sub(start)) as usize;
                Ok(Box::new(Ahead {
                    file: self.clone(),
                    next: start + length as u64,
                    at_hand: self.get_bytes(start, length)?,
                }))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        match self {
            Self::Local(file) => ChunkReader::get_bytes(file.as_ref(), start, length),
            Self::Remote { store, path, io, .. } => {
                let (store, path, range) = (store.clone(), path.clone(), start..start + length as u64);
                let (send, receive) = mpsc::channel();
                // A receiver that is gone wants nothing.
                io.spawn(async move { send.send(store.get_range(&path, range).await).ok() });
                let fetched =
                    receive.recv().map_err(|_| ParquetError::General("the I/O threads are stopping".into()))?;
                fetched.map_err(|e| ParquetError::External(Box::new(e)))
            }
        }
    }
}

/// Reads on to the file's end, a piece at a time.
struct Ahead {
    file: DataFile,
    next: u64,
    at_hand: Bytes,
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at_hand.is_empty() {
            let length = AHEAD_BYTES.min(self.file.len().saturating_sub(self.next));
            if length == 0 {
                return Ok(0);
            }
            self.at_hand = self.file.get_bytes(self.next, length as usize).map_err(std::io::Error::other)?;
            self.next += length;
        }
        let n = into.len().min(self.at_hand.len());
        self.at_hand.copy_to_slice(&mut into[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    #[test]
    fn a_file_in_a_store_reads_like_one_on_disk() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (store, path) = (Arc::new(InMemory::new()), Path::from("a/b.parquet"));
        runtime.block_on(store.put(&path, PutPayload::from(content.clone()))).unwrap();
        let size = content.len() as u64;
        let remote = DataFile::Remote { store, path, size, io: runtime.handle().clone() };
        let mut on_disk = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut on_disk, &content).unwrap();
        let local = DataFile::Local(Arc::new(on_disk));
        for file in [local, remote] {
            assert_eq!(file.len(), size);
            assert_eq!(file.get_bytes(70_001, 5_000).unwrap(), &content[70_001..75_001]);
            let mut rest = Vec::new();
            file.get_read(300_000).unwrap().read_to_end(&mut rest).unwrap();
            assert!(rest == content[300_000..]);
        }
    }
}
