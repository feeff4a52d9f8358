//! Memory that data are encoded into, used again as soon as the peer has acknowledged what was in it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::aligned::page_start;

/// Size of a buffer that is used again; fresh memory of this size would cost as much as hashing what is put into it.
pub(crate) const LARGE: usize = 272 * 1024;
/// Groups are read to where no page starts just before: there are fewer pairs in a buffer than fit into a page less this.
const BEHIND: usize = 64;
/// Bytes that a large buffer takes to have them there.
const WHOLE: usize = LARGE + 2 * 4096;
/// Buffers that may be under way or wait to be used again.
const MOST: usize = 32;

#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    // Where the data begin in it.
    start: usize,
    /// How much of it is to be sent.
    pub(crate) filled: usize,
    // Large buffers that were handed over, oldest first: the engine has the other references to them.
    lent: VecDeque<Bytes>,
}

impl Buffer {
    /// Room for `len` bytes after what is filled, of which the caller fills as many as it says. `more`: about how many
    /// bytes will be asked for from here on.
    pub(crate) fn space(&mut self, len: usize, more: usize) -> &mut [u8] {
        let needed = self.filled + len;
        if self.bytes.len() < self.start + needed {
            let wanted = needed.max((self.filled.saturating_add(more)).min(LARGE));
            if self.filled == 0 && wanted == LARGE {
                self.bytes = self.returned().unwrap_or_else(|| vec![0; WHOLE]);
                self.start = page_start(&self.bytes) + BEHIND;
            } else {
                self.bytes.resize(self.start + wanted, 0);
            }
        }
        &mut self.bytes[self.start..][self.filled..needed]
    }

    /// What was filled, to be sent.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let filled = std::mem::take(&mut self.filled);
        if filled == 0 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        let start = self.start;
        if bytes.len() == WHOLE && filled > LARGE / 2 {
            self.start = 0;
            let bytes = Bytes::from(bytes);
            if self.lent.len() == MOST {
                self.lent.pop_front();
            }
            self.lent.push_back(bytes.clone());
            return Some(bytes.slice(start..start + filled));
        }
        if start == 0 && filled > bytes.len() / 2 {
            bytes.truncate(filled);
            return Some(bytes.into());
        }
        // Small answers must not pin large buffers until they are acknowledged.
        let copy = Bytes::copy_from_slice(&bytes[start..start + filled]);
        self.bytes = bytes;
        Some(copy)
    }

    /// Gives memory back; called when nothing is left to encode.
    pub(crate) fn forget(&mut self) {
        self.bytes = Vec::new();
        self.start = 0;
        self.lent.clear();
    }

    fn returned(&mut self) -> Option<Vec<u8>> {
        if !self.lent.front()?.is_unique() {
            return None;
        }
        self.lent.pop_front().map(Vec::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, len: usize, more: usize, value: u8) {
        buffer.space(len, more).fill(value);
        buffer.filled += len;
    }

    #[test]
    fn large_buffers_come_back_when_nobody_has_them() {
        let mut buffer = Buffer::default();
        let mut under_way = VecDeque::new();
        let mut places = std::collections::HashSet::new();
        for round in 0..100_u8 {
            for _ in 0..17 {
                fill(&mut buffer, 16 * 1024, 1 << 30, round);
            }
            let piece = buffer.take().unwrap();
            assert_eq!(piece.len(), LARGE);
            places.insert(piece.as_ptr());
            under_way.push_back((round, piece));
            if under_way.len() > 5 {
                let (round, piece) = under_way.pop_front().unwrap();
                assert!(piece.iter().all(|byte| *byte == round));
            }
        }
        assert!(places.len() <= 7, "{}", places.len());
        assert!(buffer.lent.len() <= 7);
    }

    #[test]
    fn what_is_lent_is_bounded() {
        let mut buffer = Buffer::default();
        let pieces: Vec<_> = (0..100)
            .map(|_| {
                fill(&mut buffer, LARGE, 1 << 30, 1);
                buffer.take().unwrap()
            })
            .collect();
        assert_eq!(buffer.lent.len(), MOST);
        drop(pieces);
        buffer.forget();
        assert!(buffer.take().is_none());
    }

    #[test]
    fn small_pieces_take_little() {
        let mut buffer = Buffer::default();
        fill(&mut buffer, 8, 1000, 1);
        fill(&mut buffer, 900, 992, 2);
        assert_eq!(buffer.bytes.len(), 1000);
        let piece = buffer.take().unwrap();
        assert_eq!((piece.len(), piece[7], piece[8]), (908, 1, 2));
        assert!(buffer.lent.is_empty());
        fill(&mut buffer, 8, 100_000, 1);
        assert_eq!(buffer.take().unwrap(), [1; 8][..]);
        assert_eq!(buffer.bytes.len(), 100_000);
    }
}
