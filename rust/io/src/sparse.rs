//! Bytes in memory with holes: what has been written takes memory, what has not does not.

use std::collections::BTreeMap;

const SEGMENT: u64 = 256 * 1024;

#[derive(Default)]
pub struct Sparse {
    // Each segment is as long as what was written into it.
    segments: BTreeMap<u64, Vec<u8>>,
}

impl Sparse {
    pub fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let start = (offset % SEGMENT) as usize;
            let (now, rest) = data.split_at(data.len().min(SEGMENT as usize - start));
            let segment = self.segments.entry(offset / SEGMENT).or_default();
            if segment.len() == start {
                segment.extend_from_slice(now);
            } else {
                if segment.len() < start + now.len() {
                    segment.resize(start + now.len(), 0);
                }
                segment[start..start + now.len()].copy_from_slice(now);
            }
            offset += now.len() as u64;
            data = rest;
        }
    }

    /// Fills the buffer; holes read as zeros.
    pub fn read(&self, mut offset: u64, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let start = (offset % SEGMENT) as usize;
            let take = buffer.len().min(SEGMENT as usize - start);
            let (now, rest) = buffer.split_at_mut(take);
            let stored = self.segments.get(&(offset / SEGMENT)).and_then(|segment| segment.get(start..));
            let stored = stored.unwrap_or(&[]);
            let known = stored.len().min(take);
            now[..known].copy_from_slice(&stored[..known]);
            now[known..].fill(0);
            offset += take as u64;
            buffer = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_zeros_and_writes_are_kept() {
        let mut sparse = Sparse::default();
        let mut model = vec![0_u8; 3 * SEGMENT as usize];
        let pieces =
            [(5, 10), (SEGMENT - 3, 7), (2 * SEGMENT - 1, 1), (100, 300_000), (0, 1), (SEGMENT, SEGMENT)];
        for (i, (offset, len)) in pieces.into_iter().enumerate() {
            let data = vec![i as u8 + 1; len as usize];
            sparse.write(offset, &data);
            model[offset as usize..(offset + len) as usize].copy_from_slice(&data);
            let mut read = vec![9; model.len()];
            sparse.read(0, &mut read);
            assert!(read == model);
        }
        let mut far = [9; 4];
        sparse.read(1 << 60, &mut far);
        assert_eq!(far, [0; 4]);
        assert!(sparse.segments.len() <= 3);
    }
}
