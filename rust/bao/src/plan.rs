//! What follows the size header on the wire, item by item.

use crate::ranges::{ChunkRanges, Cover};
use crate::tree::Node;

/// The next item of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The pair of a node, and which of its children follow.
    Parent { node: Node, left: bool, right: bool },
    /// The bytes of a node.
    Leaf(Node),
}

/// The items of a response in wire order: what size and query determine.
#[derive(Debug, Clone)]
pub struct Plan {
    selected: ChunkRanges,
    // Nodes still to visit, each with something selected: at most one per level, so 55 for 2^64 bytes.
    stack: Vec<Node>,
}

impl Plan {
    pub fn new(size: u64, query: &ChunkRanges) -> Self {
        let selected = query.truncate(size);
        let mut stack = Vec::new();
        if !selected.is_empty() {
            stack.push(Node::root(size));
        }
        Self { selected, stack }
    }

    /// The chunks that the response carries.
    pub fn selected(&self) -> &ChunkRanges {
        &self.selected
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let node = self.stack.pop()?;
        if node.chunks() == 1 || node.in_group() && self.selected.cover(node.lo, node.hi) == Cover::All {
            return Some(Step::Leaf(node));
        }
        let (left, right) = node.children();
        let wanted = |child: &Node| self.selected.cover(child.lo, child.hi) != Cover::None;
        let step = Step::Parent { node, left: wanted(&left), right: wanted(&right) };
        if let Step::Parent { left: want_left, right: want_right, .. } = step {
            if want_right {
                self.stack.push(right);
            }
            if want_left {
                self.stack.push(left);
            }
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_claim_needs_few_levels() {
        let mut plan = Plan::new(u64::MAX, &ChunkRanges::last_chunk());
        let mut deepest = 0;
        let mut items = 0;
        while plan.next().is_some() {
            deepest = deepest.max(plan.stack.len());
            items += 1;
        }
        assert_eq!(items, 55);
        assert_eq!(deepest, 1);
        let mut plan = Plan::new(u64::MAX, &ChunkRanges::all());
        for _ in 0..1000 {
            assert!(plan.next().is_some());
            assert!(plan.stack.len() <= 54);
        }
    }
}
