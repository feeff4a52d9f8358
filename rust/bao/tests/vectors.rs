//! The vectors taken from live upstream nodes, shared with the Python tests.

use aioiroh_bao::hash::subtree;
use aioiroh_bao::plan::{Plan, Step};
use aioiroh_bao::{ChunkRanges, Decoder, Event, encode, outboard, tree};
use serde_json::Value;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/unit/vectors/bao.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn blob(size: u64) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

fn size(row: &Value) -> u64 {
    row["size"].as_u64().unwrap()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap()
}

fn query(row: &Value) -> ChunkRanges {
    let boundaries = row["boundaries"].as_array().unwrap();
    ChunkRanges::from_boundaries(boundaries.iter().map(|b| b.as_str().unwrap().parse().unwrap()).collect())
        .unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rows(name: &str) -> Vec<Value> {
    let rows = vectors()[name].as_array().unwrap().clone();
    assert!(!rows.is_empty());
    rows
}

#[test]
fn hashes() {
    for row in rows("hashes") {
        assert_eq!(hex(&outboard::of_bytes(&blob(size(&row))).0), text(&row, "hash"));
    }
}

#[test]
fn chaining_values() {
    for row in rows("chaining_values") {
        let (lo, hi) = (row["lo"].as_u64().unwrap(), row["hi"].as_u64().unwrap());
        let bytes = tree::byte_range(lo, hi, size(&row));
        let data = &blob(size(&row))[bytes.start as usize..bytes.end as usize];
        assert_eq!(hex(&subtree(data, lo, false)), text(&row, "cv"));
    }
}

#[test]
fn outboards() {
    for row in rows("outboards") {
        assert_eq!(hex(&outboard::of_bytes(&blob(size(&row))).1), text(&row, "outboard"));
    }
}

#[test]
fn encodings() {
    for row in rows("encodings") {
        let data = blob(size(&row));
        let (hash, outboard) = outboard::of_bytes(&data);
        let encoded = encode::to_vec(hash, &data, &outboard, &query(&row)).unwrap();
        assert_eq!(encoded.len() as u64, row["length"].as_u64().unwrap(), "{row}");
        assert_eq!(blake3::hash(&encoded).to_hex().as_str(), text(&row, "blake3"), "{row}");

        let structure: Vec<String> = std::iter::once("S".to_owned())
            .chain(Plan::new(size(&row), &query(&row)).map(|step| match step {
                Step::Parent { node, .. } => format!("P{}-{}", node.lo, node.hi),
                Step::Leaf(node) => {
                    let bytes = node.bytes(size(&row));
                    format!("L{}:{}", node.lo, bytes.end - bytes.start)
                }
            }))
            .collect();
        assert_eq!(structure.join(" "), text(&row, "structure"));

        let mut decoder = Decoder::new(hash, query(&row), u64::MAX);
        let mut rest = encoded.as_slice();
        let mut got = 0;
        while !decoder.is_done() {
            let (taken, event) = decoder.feed(rest).unwrap();
            rest = &rest[taken..];
            if let Some(Event::Leaf { offset, data: leaf }) = event {
                assert_eq!(&data[offset as usize..][..leaf.len()], leaf);
                got += leaf.len() as u64;
            }
        }
        assert!(decoder.is_done() && rest.is_empty());
        assert_eq!(got, query(&row).truncate(size(&row)).bytes(size(&row)));
    }
}

#[test]
fn prefixes() {
    for row in rows("prefixes") {
        let data = blob(size(&row));
        let (hash, outboard) = outboard::of_bytes(&data);
        let encoded = encode::to_vec(hash, &data, &outboard, &query(&row)).unwrap();
        assert!(hex(&encoded).starts_with(text(&row, "prefix")), "{row}");
    }
}
