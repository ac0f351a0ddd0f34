//! A set of names that can hold a million of them without slowing down those who look one up.
//!
//! A name is kept as the first half of its SHA-256, since ids are longer and memory is what counts. The entries are
//! spread over shards, each behind a lock of its own: while one of them grows or is pruned, a look-up waits for a
//! 64th of the work at most, and most look-ups do not wait at all.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::RwLock,
};

use sha2::{Digest, Sha256};

use crate::locks::{read, write};

const SHARDS: usize = 64;
/// Below this many, a shard is not worth pruning.
const FEW: usize = 256;

type Key = [u8; 16];

/// Names, each with a value and the time from which on it may be forgotten.
pub(crate) struct TtlMap<V> {
    shards: [RwLock<Shard<V>>; SHARDS],
}

struct Shard<V> {
    entries: HashMap<Key, (V, u32)>,
    prune_at: usize,
}

impl<V: Copy + Ord> TtlMap<V> {
    pub(crate) fn new() -> Self {
        let shard = || RwLock::new(Shard { entries: HashMap::new(), prune_at: FEW });
        Self { shards: std::array::from_fn(|_| shard()) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<V> {
        let key = key(name);
        read(self.shard(&key)).entries.get(&key).map(|(value, _)| *value)
    }

    /// Adds a name. Of two values and two times of one name the larger stays.
    pub(crate) fn insert(&self, name: &str, value: V, expires_at: i64, now: i64) {
        if expires_at <= now {
            return;
        }
        let key = key(name);
        write(self.shard(&key)).insert(key, value, seconds(expires_at), seconds(now));
    }

    fn shard(&self, key: &Key) -> &RwLock<Shard<V>> {
        &self.shards[usize::from(key[0]) % SHARDS]
    }
}

impl<V: Copy + Ord> Shard<V> {
    /// Forgets what has expired whenever the shard has grown by a quarter since it last did. So an addition pays for
    /// looking at five entries, and a fifth of the memory at most is spent on what is of no more use.
    fn insert(&mut self, key: Key, value: V, expires_at: u32, now: u32) {
        if self.entries.len() >= self.prune_at {
            self.entries.retain(|_, (_, expires_at)| *expires_at > now);
            self.prune_at = FEW.max(self.entries.len() + self.entries.len() / 4);
        }
        match self.entries.entry(key) {
            Entry::Occupied(mut there) => {
                let (old, until) = *there.get();
                there.insert((old.max(value), until.max(expires_at)));
            }
            Entry::Vacant(place) => {
                place.insert((value, expires_at));
            }
        }
    }
}

fn key(name: &str) -> Key {
    let digest: [u8; 32] = Sha256::digest(name).into();
    std::array::from_fn(|at| digest[at])
}

/// What does not fit is after the year 2106, and no token holds that long.
fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len<V>(names: &TtlMap<V>) -> usize {
        names.shards.iter().map(|shard| read(shard).entries.len()).sum()
    }

    #[test]
    fn what_has_expired_is_forgotten_as_new_names_come() {
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
    fn what_has_expired_is_not_added() {
        let names = TtlMap::new();
        names.insert("gone", (), 100, 100);
        assert_eq!(names.get("gone"), None);
    }

    #[test]
    fn the_larger_value_and_the_later_time_stay() {
        let names = TtlMap::new();
        names.insert("a", 5, 100, 0);
        names.insert("a", 3, 200, 0);
        assert_eq!(names.get("a"), Some(5));
        // At 150, the shard of "a" among them.
        for number in 0..100_000 {
            names.insert(&format!("{number}"), 1, 300, 150);
        }
        assert_eq!(names.get("a"), Some(5));
        names.insert("a", 7, 180, 150);
        assert_eq!(names.get("a"), Some(7));
    }

    #[test]
    fn a_time_beyond_the_last_one_is_the_last_one() {
        let names = TtlMap::new();
        names.insert("a", (), i64::MAX, 1);
        assert_eq!(names.get("a"), Some(()));
    }

    #[test]
    fn a_million_names_are_told_apart() {
        let names = TtlMap::new();
        for number in 0..1_000_000 {
            names.insert(&format!("{number:032x}"), (), 100, 0);
        }
        assert_eq!(len(&names), 1_000_000);
        assert!((0..1_000_000).step_by(97).all(|number| names.get(&format!("{number:032x}")).is_some()));
        assert!((1_000_000..1_100_000).all(|number| names.get(&format!("{number:032x}")).is_none()));
    }
}
