//! Chaining values of subtrees.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::tree::{CHUNK, PAIR};

/// A BLAKE3 hash or the chaining value of a subtree.
pub type Hash = [u8; 32];
/// The chaining values of the two children of a parent.
pub type Pair = [u8; PAIR];

/// The hash of no bytes.
pub const EMPTY: Hash = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b,
    0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// The chaining value of the subtree that starts at chunk `lo`; the blob's hash if it is the root.
pub fn subtree(data: &[u8], lo: u64, is_root: bool) -> Hash {
    if is_root {
        debug_assert_eq!(lo, 0);
        return *blake3::hash(data).as_bytes();
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(lo * CHUNK);
    hasher.update(data);
    hasher.finalize_non_root()
}

/// The chaining value of a parent; the blob's hash if it is the root.
pub fn parent(pair: &Pair, is_root: bool) -> Hash {
    let (left, right) = halves(pair);
    if is_root {
        *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

/// The two chaining values in a pair.
pub fn halves(pair: &Pair) -> (Hash, Hash) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..]);
    (left, right)
}

/// The pair of two chaining values.
pub fn pair(left: &Hash, right: &Hash) -> Pair {
    let mut pair = [0; PAIR];
    pair[..32].copy_from_slice(left);
    pair[32..].copy_from_slice(right);
    pair
}
