//! Where an encoded file grows: in chunks of one mebibyte, so that it is never copied to grow.

use std::io::{self, Write};

use bytes::Bytes;

const CHUNK: usize = 1 << 20;

/// A growing file in memory.
#[derive(Debug, Default)]
pub struct Chunks {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Chunks {
    /// The file's bytes, in order.
    pub fn into_bytes(mut self) -> Vec<Bytes> {
        if !self.last.is_empty() {
            self.last.shrink_to_fit();
            self.full.push(self.last.into());
        }
        self.full
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.capacity() == 0 {
            self.last.reserve_exact(CHUNK);
        }
        let n = bytes.len().min(CHUNK - self.last.len());
        self.last.extend_from_slice(&bytes[..n]);
        if self.last.len() == CHUNK {
            self.full.push(std::mem::take(&mut self.last).into());
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut chunks = Chunks::default();
        let data: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i % 251) as u8).collect();
        for part in data.chunks(70_001) {
            chunks.write_all(part).unwrap();
        }
        let out = chunks.into_bytes();
        assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [CHUNK, CHUNK, CHUNK, 17]);
        assert_eq!(out.concat(), data);
    }
}
