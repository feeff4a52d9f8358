//! Which connections an endpoint has, and who has heard from it (relay protocol, section 4.2).

use std::collections::{BTreeSet, HashMap};

use crate::frame::Key;

/// Connections of one endpoint that another one has replaced. Of more, the oldest is ended.
pub const MAX_REPLACED: usize = 8;
/// Endpoints that are told when another one leaves. Further ones find out by themselves.
#[derive(Debug)]
struct Told {
    each: usize,
    /// Of all together: some 50 MB.
    together: usize,
    /// Each may have so many still when that is reached.
    guaranteed: usize,
}

const TOLD: Told = Told { each: 1024, together: 1 << 20, guaranteed: 16 };

#[derive(Debug, Default)]
struct Endpoint {
    active: u64,
    /// The latest last.
    replaced: Vec<u64>,
    sent_to: BTreeSet<Key>,
    /// [`Table::departed`] when those were left out of `sent_to` who had gone.
    pruned: u64,
}

/// Endpoints that have proved their keys. Keys are hashed with a secret: who is outside cannot make them collide.
#[derive(Debug)]
pub struct Table {
    endpoints: HashMap<Key, Endpoint>,
    /// Grows with every change: what was looked up before may be stale.
    epoch: u64,
    departed: u64,
    /// The sum of all `sent_to`.
    told: usize,
    bounds: Told,
}

impl Default for Table {
    fn default() -> Self {
        Self::with(TOLD)
    }
}

/// What a new connection of an endpoint means for those before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entered {
    /// It is not the active one any more.
    pub replaced: Option<u64>,
    /// Too many wait; this one is to be ended.
    pub surplus: Option<u64>,
}

/// What the end of a connection means.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// One that was replaced before.
    Replaced,
    /// This one is active again.
    Restored(u64),
    /// The endpoint is gone; these are to be told.
    Gone(Vec<Key>),
}

impl Table {
    fn with(bounds: Told) -> Self {
        Self { endpoints: HashMap::default(), epoch: 0, departed: 0, told: 0, bounds }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn active(&self, key: &Key) -> Option<u64> {
        self.endpoints.get(key).map(|endpoint| endpoint.active)
    }

    /// The active connection, then those it has replaced, the latest first.
    pub fn connections(&self, key: &Key) -> Vec<u64> {
        self.endpoints.get(key).map_or_else(Vec::new, |endpoint| {
            std::iter::once(endpoint.active).chain(endpoint.replaced.iter().rev().copied()).collect()
        })
    }

    pub fn enter(&mut self, key: Key, number: u64) -> Entered {
        self.epoch += 1;
        let Some(endpoint) = self.endpoints.get_mut(&key) else {
            self.endpoints.insert(key, Endpoint { active: number, ..Endpoint::default() });
            return Entered::default();
        };
        let before = std::mem::replace(&mut endpoint.active, number);
        endpoint.replaced.push(before);
        let surplus = (endpoint.replaced.len() > MAX_REPLACED).then(|| endpoint.replaced.remove(0));
        Entered { replaced: Some(before), surplus }
    }

    /// None: there is no such connection.
    pub fn leave(&mut self, key: &Key, number: u64) -> Option<Left> {
        let endpoint = self.endpoints.get_mut(key)?;
        if endpoint.active != number {
            let at = endpoint.replaced.iter().position(|each| *each == number)?;
            endpoint.replaced.remove(at);
            return Some(Left::Replaced);
        }
        self.epoch += 1;
        if let Some(next) = endpoint.replaced.pop() {
            endpoint.active = next;
            return Some(Left::Restored(next));
        }
        self.departed += 1;
        let gone = self.endpoints.remove(key)?;
        self.told -= gone.sent_to.len();
        Some(Left::Gone(gone.sent_to.into_iter().collect()))
    }

    /// `from` has sent something to `to`.
    pub fn sent(&mut self, from: &Key, to: &Key) {
        let most = if self.told < self.bounds.together { self.bounds.each } else { self.bounds.guaranteed };
        let Some(endpoint) = self.endpoints.get_mut(from) else { return };
        let before = endpoint.sent_to.len();
        let mut sent_to = std::mem::take(&mut endpoint.sent_to);
        // Those who have gone leave room; nobody is looked at again before another one has gone.
        if before >= most && std::mem::replace(&mut endpoint.pruned, self.departed) != self.departed {
            sent_to.retain(|key| self.endpoints.contains_key(key));
        }
        if sent_to.len() < most {
            sent_to.insert(*to);
        }
        self.told = self.told - before + sent_to.len();
        if let Some(endpoint) = self.endpoints.get_mut(from) {
            endpoint.sent_to = sent_to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = [1; 32];
    const B: Key = [2; 32];

    #[test]
    fn the_latest_connection_is_the_active_one() {
        let mut table = Table::default();
        assert_eq!(table.enter(A, 1), Entered::default());
        assert_eq!(table.enter(A, 2), Entered { replaced: Some(1), surplus: None });
        assert_eq!(table.enter(A, 3), Entered { replaced: Some(2), surplus: None });
        assert_eq!(table.connections(&A), [3, 2, 1]);
        assert_eq!(table.leave(&A, 1), Some(Left::Replaced));
        assert_eq!(table.leave(&A, 1), None);
        assert_eq!(table.leave(&A, 3), Some(Left::Restored(2)));
        assert_eq!(table.active(&A), Some(2));
        assert_eq!(table.leave(&A, 2), Some(Left::Gone(vec![])));
        assert_eq!((table.active(&A), table.leave(&A, 2)), (None, None));
    }

    #[test]
    fn replaced_connections_are_bounded() {
        let mut table = Table::default();
        let surplus: Vec<_> = (0..12).filter_map(|number| table.enter(A, number).surplus).collect();
        assert_eq!(surplus, [0, 1, 2]);
        assert_eq!(table.connections(&A).len(), MAX_REPLACED + 1);
    }

    fn key(number: usize) -> Key {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    /// Who is told when the only connection of an endpoint ends.
    fn told(table: &mut Table, key: &Key, number: u64) -> Vec<Key> {
        match table.leave(key, number) {
            Some(Left::Gone(told)) => told,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_heard_from_it_is_told_within_bounds() {
        let mut table = Table::default();
        table.enter(A, 1);
        for i in 0..TOLD.each {
            table.enter(key(i), i as u64 + 10);
            table.sent(&A, &key(i));
        }
        table.enter(B, 2);
        table.sent(&A, &B);
        // One of them leaves, and there is room again.
        table.leave(&key(5), 15);
        table.sent(&A, &B);
        let told = told(&mut table, &A, 1);
        assert_eq!(told.len(), TOLD.each);
        assert!(told.contains(&B) && !told.contains(&key(5)));
        assert_eq!(table.told, 0);
    }

    #[test]
    fn who_talks_to_many_takes_little_from_others() {
        let mut table = Table::with(Told { each: 10, together: 15, guaranteed: 2 });
        for i in 0..20 {
            table.enter(key(i), i as u64);
        }
        let mut talk = |from: usize| {
            for to in 0..20 {
                table.sent(&key(from), &key(to));
            }
            table.told
        };
        // The second one takes what is left, all others have what each has anyway.
        assert_eq!([talk(0), talk(1), talk(2), talk(3)], [10, 15, 17, 19]);
        assert_eq!(told(&mut table, &key(3), 3), [key(0), key(1)]);
        assert_eq!(told(&mut table, &key(0), 0).len(), 10);
        assert_eq!(table.told, 7);
        // There is room again.
        for to in 0..20 {
            table.sent(&key(2), &key(to));
        }
        assert_eq!(told(&mut table, &key(2), 2).len(), 10);
        assert_eq!(told(&mut table, &key(1), 1).len(), 5);
        assert_eq!(table.told, 0);
    }
}
