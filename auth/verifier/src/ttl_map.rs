//! A sharded map whose entries expire, for millions of names.
//!
//! A name is stored as the first half of its SHA-256, because ids are longer. Each shard has its
//! own lock: while one of them grows or is pruned, a lookup waits for a 64th of the work at most,
//! and most lookups do not wait.
//!
//! Not a cache crate such as `moka`: no entry may be evicted before it expires, and an entry there
//! takes several times the memory.

use std::collections::{HashMap, hash_map::Entry};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

const SHARDS: usize = 64;
/// A shard with fewer entries is not pruned.
const MIN_PRUNE_AT: usize = 256;

type Key = [u8; 16];

/// Values by name, each with an expiry.
pub(crate) struct TtlMap<V> {
    shards: [RwLock<Shard<V>>; SHARDS],
}

struct Shard<V> {
    entries: HashMap<Key, (V, u32)>,
    prune_at: usize,
}

impl<V: Copy + Ord> TtlMap<V> {
    pub(crate) fn new() -> Self {
        let shard = || RwLock::new(Shard { entries: HashMap::new(), prune_at: MIN_PRUNE_AT });
        Self { shards: std::array::from_fn(|_| shard()) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<V> {
        let key = key(name);
        self.shard(&key).read().entries.get(&key).map(|(value, _)| *value)
    }

    /// Adds an entry. Of two values and two expiries of a name the larger one is stored.
    pub(crate) fn insert(&self, name: &str, value: V, expires_at: i64, now: i64) {
        if expires_at <= now {
            return;
        }
        let key = key(name);
        self.shard(&key).write().insert(key, value, seconds(expires_at), seconds(now));
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard<V>> {
        &self.shards[usize::from(key[0]) % SHARDS]
    }
}

impl<V: Copy + Ord> Shard<V> {
    /// Prunes expired entries whenever the shard has grown by a quarter since the last pruning. So
    /// an insertion costs the check of five entries on average, and at most a fifth of the memory
    /// is used by expired ones.
    fn insert(&mut self, key: Key, value: V, expires_at: u32, now: u32) {
        if self.entries.len() >= self.prune_at {
            self.entries.retain(|_, (_, expires_at)| *expires_at > now);
            self.prune_at = MIN_PRUNE_AT.max(self.entries.len() + self.entries.len() / 4);
        }
        match self.entries.entry(key) {
            Entry::Occupied(mut entry) => {
                let (old, until) = *entry.get();
                entry.insert((old.max(value), until.max(expires_at)));
            }
            Entry::Vacant(entry) => {
                entry.insert((value, expires_at));
            }
        }
    }
}

fn key(name: &str) -> Key {
    let digest: [u8; 32] = Sha256::digest(name).into();
    std::array::from_fn(|at| digest[at])
}

/// Seconds that fit into 32 bits. Later times are after the year 2106, beyond the validity of
/// tokens.
fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len<V>(names: &TtlMap<V>) -> usize {
        names.shards.iter().map(|shard| shard.read().entries.len()).sum()
    }

    #[test]
    fn expired_entries_are_pruned_by_insertions() {
        let names = TtlMap::new();
        for number in 0..100_000 {
            names.insert(&format!("old {number}"), (), 100, 50);
        }
        assert_eq!(names.get("old 7"), Some(()));
        for number in 0..100_000 {
            names.insert(&format!("new {number}"), (), 300, 200);
        }
        assert!(len(&names) < 125_000, "{}", len(&names));
        assert!((0..100_000).all(|number| names.get(&format!("new {number}")).is_some()));
    }

    #[test]
    fn expired_entry_is_not_inserted() {
        let names = TtlMap::new();
        names.insert("gone", (), 100, 100);
        assert_eq!(names.get("gone"), None);
    }

    #[test]
    fn larger_value_and_later_expiry_are_stored() {
        let names = TtlMap::new();
        names.insert("a", 5, 100, 0);
        names.insert("a", 3, 200, 0);
        assert_eq!(names.get("a"), Some(5));
        // Prunes all shards at the time 150.
        for number in 0..100_000 {
            names.insert(&format!("{number}"), 1, 300, 150);
        }
        assert_eq!(names.get("a"), Some(5));
        names.insert("a", 7, 180, 150);
        assert_eq!(names.get("a"), Some(7));
    }

    #[test]
    fn expiry_beyond_32_bits_is_clamped() {
        let names = TtlMap::new();
        names.insert("a", (), i64::MAX, 1);
        assert_eq!(names.get("a"), Some(()));
    }

    #[test]
    fn million_names_are_distinct() {
        let names = TtlMap::new();
        for number in 0..1_000_000 {
            names.insert(&format!("{number:032x}"), (), 100, 0);
        }
        assert_eq!(len(&names), 1_000_000);
        assert!((0..1_000_000).step_by(97).all(|number| names.get(&format!("{number:032x}")).is_some()));
        assert!((1_000_000..1_100_000).all(|number| names.get(&format!("{number:032x}")).is_none()));
    }
}
