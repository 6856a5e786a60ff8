//! ClickHouse's own block framing, which `compress=1` and `decompress=1` ask for.
//!
//! A block is: 16 bytes CityHash128 (v1.0.2) of the rest; one byte method; compressed size with these 9 bytes of
//! header, u32; uncompressed size, u32; the compressed bytes. All numbers are little-endian.

use std::io::{self, Read, Write};

use cityhash_rs::cityhash_102_128;

const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
const METHOD_ZSTD: u8 = 0x90;
const CHECKSUM: usize = 16;
const HEADER: usize = 9;
/// What one block may hold, as in ClickHouse (1 GiB).
const BLOCK_BYTES_MAX: usize = 1 << 30;
/// What one block of a response holds before compression.
const BLOCK_BYTES: usize = 1 << 20;

fn checksum(data: &[u8]) -> [u8; CHECKSUM] {
    let hash = cityhash_102_128(data);
    // ClickHouse writes the high half first.
    hash.rotate_right(64).to_le_bytes()
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Turns block framing back into plain bytes.
pub struct BlockReader<R> {
    inner: R,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> BlockReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, block: Vec::new(), at: 0 }
    }

    /// Reads the next block; `false` at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut head = [0; CHECKSUM + HEADER];
        let mut got = 0;
        while got < head.len() {
            match self.inner.read(&mut head[got..])? {
                0 if got == 0 => return Ok(false),
                0 => return Err(wrong("the body ends inside the header of a compressed block")),
                n => got += n,
            }
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (compressed, plain) = (number(CHECKSUM + 1), number(CHECKSUM + 5));
        if !(HEADER..=BLOCK_BYTES_MAX).contains(&compressed) || plain > BLOCK_BYTES_MAX {
            return Err(wrong("a compressed block has impossible sizes; is the body compressed at all?"));
        }
        let mut data = Vec::new();
        data.extend_from_slice(&head[CHECKSUM..]);
        let rest = (compressed - HEADER) as u64;
        if self.inner.by_ref().take(rest).read_to_end(&mut data)? as u64 != rest {
            return Err(wrong("the body ends inside a compressed block"));
        }
        if checksum(&data) != head[..CHECKSUM] {
            return Err(wrong("Checksum doesn't match: corrupted data in a compressed block"));
        }
        let payload = &data[HEADER..];
        self.block = match data[0] {
            METHOD_LZ4 => lz4_flex::block::decompress(payload, plain).map_err(|e| wrong(e.to_string()))?,
            METHOD_ZSTD => zstd::bulk::decompress(payload, plain)?,
            METHOD_NONE => payload.to_vec(),
            other => return Err(wrong(format!("unknown compression method 0x{other:02x} in a compressed block"))),
        };
        if self.block.len() != plain {
            return Err(wrong("a compressed block holds another number of bytes than it says"));
        }
        self.at = 0;
        Ok(true)
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = out.len().min(self.block.len() - self.at);
        out[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Appends `plain` to `out` as LZ4 blocks.
pub fn write_blocks(plain: &[u8], out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    for piece in plain.chunks(BLOCK_BYTES) {
        let payload = lz4_flex::block::compress(piece);
        let mut data = Vec::with_capacity(HEADER + payload.len());
        data.push(METHOD_LZ4);
        // Both fit: a piece is at most 1 MiB, and LZ4 adds less than one percent.
        data.extend_from_slice(&((payload.len() + HEADER) as u32).to_le_bytes());
        data.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        data.extend_from_slice(&payload);
        out.write_all(&checksum(&data))?;
        out.write_all(&data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_as_they_went() {
        for size in [0, 1, 1000, 3 << 20] {
            let plain: Vec<u8> = (0..size).map(|i: usize| ((i * i) >> 3) as u8).collect();
            let mut framed = Vec::new();
            write_blocks(&plain, &mut framed).unwrap();
            let mut back = Vec::new();
            BlockReader::new(framed.as_slice()).read_to_end(&mut back).unwrap();
            assert!(back == plain, "{size} bytes");
        }
    }

    #[test]
    fn damaged_blocks_are_refused() {
        let mut framed = Vec::new();
        write_blocks(b"some rows", &mut framed).unwrap();
        let read = |bytes: &[u8]| BlockReader::new(bytes).read_to_end(&mut Vec::new()).map_err(|e| e.to_string());
        assert!(read(&framed[..10]).unwrap_err().contains("header"));
        assert!(read(&framed[..framed.len() - 1]).unwrap_err().contains("ends inside"));
        let last = framed.len() - 1;
        framed[last] ^= 1;
        assert!(read(&framed).unwrap_err().contains("Checksum"));
        assert!(read(b"INSERT INTO t SELECT number FROM numbers(3)").is_err(), "a body that was never compressed");
    }
}
