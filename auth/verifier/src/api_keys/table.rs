//! The table of API keys in a verifier.
//!
//! Keys are entries of 48 bytes in sorted vectors. Ids are random, so the highest ten bits of an id
//! distribute the keys evenly over 1,024 shards; a look-up is a binary search in one shard, an
//! insertion moves at most a 1,024th of the table. Vectors grow by an eighth, so a million keys take
//! 51 MB to 57 MB (`million_keys_take_57_bytes_each`), where a hash map would take 57 to 120 bytes a
//! key. The name of each owner is stored once.

use std::{collections::HashMap, sync::Arc};

use muse_proto::{Error, v1::VerifiableKey};
use parking_lot::RwLock;

use super::{KeyId, KeyState, ParsedKey, VerifiedKey, key_unknown};

const SHARDS: usize = 1024;
/// An id has 60 bits.
const SHARD_SHIFT: u32 = 60 - SHARDS.trailing_zeros();

const DISABLED: u32 = 1 << 31;
const DELETED: u32 = 1 << 30;
const BULK: u32 = 1 << 29;

/// The keys that a verifier knows.
pub(crate) struct KeyTable {
    shards: Box<[RwLock<Vec<Entry>>]>,
    owners: RwLock<Owners>,
}

#[derive(Clone, Copy)]
struct Entry {
    id: u64,
    digest: [u8; 32],
    /// Unix time in seconds; 0 for never. A key that expires after 2106 expires in 2106.
    expires_at: u32,
    /// The index of the owner, and the flags.
    owner: u32,
}

/// The names of owners. They are not removed before the table is replaced.
#[derive(Default)]
struct Owners {
    names: Vec<Arc<str>>,
    indices: HashMap<Arc<str>, u32>,
}

impl KeyTable {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, owners: RwLock::default() }
    }

    /// Adds or replaces a key. One whose digest has another length than a SHA-256 is rejected from
    /// then on, as if it were deleted.
    pub(crate) fn apply(&self, key: &VerifiableKey) {
        let digest = <[u8; 32]>::try_from(&*key.digest).ok();
        let mut owner = if key.owner.is_empty() { 0 } else { self.owner_index(&key.owner) };
        for (flag, bit) in
            [(key.disabled, DISABLED), (key.deleted || digest.is_none(), DELETED), (key.bulk, BULK)]
        {
            owner |= if flag { bit } else { 0 };
        }
        let id = KeyId::new(key.id).number();
        let expires_at = u32::try_from(key.expires_at.max(0)).unwrap_or(u32::MAX);
        let entry = Entry { id, digest: digest.unwrap_or_default(), expires_at, owner };
        let mut shard = self.shard(id).write();
        match shard.binary_search_by_key(&id, |entry| entry.id) {
            Ok(at) => shard[at] = entry,
            Err(at) => {
                if shard.len() == shard.capacity() {
                    let growth = (shard.len() / 8).max(4);
                    shard.reserve_exact(growth);
                }
                shard.insert(at, entry);
            }
        }
    }

    /// Looks a key up, and verifies its secret and that it is valid at the time `now`.
    pub(crate) fn verify(&self, key: &ParsedKey, now: i64) -> Result<VerifiedKey, Error> {
        let id = key.id.number();
        let shard = self.shard(id).read();
        let at = shard.binary_search_by_key(&id, |entry| entry.id).map_err(|_| key_unknown())?;
        let entry = shard[at];
        drop(shard);
        let state = KeyState {
            digest: &entry.digest,
            deleted: entry.owner & DELETED != 0,
            disabled: entry.owner & DISABLED != 0,
            expires_at: entry.expires_at.into(),
        };
        state.verify(key, now)?;
        let index = (entry.owner & !(DISABLED | DELETED | BULK)) as usize;
        let owner = self.owners.read().names.get(index).cloned().ok_or_else(key_unknown)?;
        Ok(VerifiedKey { id: key.id, owner, bulk: entry.owner & BULK != 0 })
    }

    /// Whether a key is known as deleted.
    pub(crate) fn is_deleted(&self, id: KeyId) -> bool {
        let shard = self.shard(id.number()).read();
        let found = shard.binary_search_by_key(&id.number(), |entry| entry.id);
        found.is_ok_and(|at| shard[at].owner & DELETED != 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    fn shard(&self, id: u64) -> &RwLock<Vec<Entry>> {
        &self.shards[(id >> SHARD_SHIFT) as usize % SHARDS]
    }

    fn owner_index(&self, name: &str) -> u32 {
        if let Some(&index) = self.owners.read().indices.get(name) {
            return index;
        }
        let mut owners = self.owners.write();
        if let Some(&index) = owners.indices.get(name) {
            return index;
        }
        // There are fewer users than 2^29: each of them takes some 100 bytes.
        let index = u32::try_from(owners.names.len()).unwrap_or(u32::MAX) & !(DISABLED | DELETED | BULK);
        let name: Arc<str> = name.into();
        owners.names.push(Arc::clone(&name));
        owners.indices.insert(name, index);
        index
    }

    /// Bytes of the entries, with what is reserved for more.
    #[cfg(test)]
    fn capacity_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().capacity() * size_of::<Entry>()).sum::<usize>()
            + SHARDS * size_of::<RwLock<Vec<Entry>>>()
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::Reason;

    use super::*;
    use crate::api_keys::compose;

    fn key(number: u64, owner: &str) -> (ParsedKey, VerifiableKey) {
        let id = KeyId::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut secret = [7; 20];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        let (text, digest) = compose(id, &secret);
        let message = VerifiableKey {
            id: id.number(),
            digest: digest.to_vec(),
            owner: owner.to_owned(),
            ..VerifiableKey::default()
        };
        (ParsedKey::parse(&text).unwrap(), message)
    }

    #[test]
    fn key_is_valid_until_it_changes() {
        let table = KeyTable::new();
        let (parsed, message) = key(1, "ann");
        let apply = |message: &VerifiableKey| table.apply(message);
        let reason = |now| table.verify(&parsed, now).map_err(|error| error.reason()).map(|key| key.bulk);
        assert_eq!(reason(0), Err(Reason::KeyUnknown));
        apply(&message);
        assert_eq!(&*table.verify(&parsed, 0).unwrap().owner, "ann");
        apply(&VerifiableKey { expires_at: 100, bulk: true, ..message.clone() });
        assert_eq!((reason(99), reason(100)), (Ok(true), Err(Reason::KeyExpired)));
        apply(&VerifiableKey { disabled: true, ..message.clone() });
        assert_eq!(reason(0), Err(Reason::KeyDisabled));
        apply(&VerifiableKey { digest: vec![0; 32], ..message.clone() });
        assert_eq!(reason(0), Err(Reason::KeyUnknown), "another secret");
        apply(&VerifiableKey { digest: Vec::new(), deleted: true, ..message.clone() });
        assert_eq!(reason(0), Err(Reason::KeyRevoked));
        apply(&VerifiableKey { digest: vec![1; 31], ..message });
        assert_eq!(reason(0), Err(Reason::KeyRevoked), "not a digest");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn million_keys_take_57_bytes_each() {
        let table = KeyTable::new();
        let owners = ["ann", "bob", "carol"];
        let mut message = key(0, "").1;
        for number in 0..1_000_000_u64 {
            message.id = KeyId::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).number();
            owners[number as usize % 3].clone_into(&mut message.owner);
            table.apply(&message);
        }
        assert_eq!(table.len(), 1_000_000);
        assert!(table.capacity_bytes() <= 57_000_000, "{} bytes", table.capacity_bytes());
        let (last, message) = key(999_999, "dan");
        assert!(table.verify(&last, 0).is_err(), "its digest is another one");
        table.apply(&message);
        assert_eq!(&*table.verify(&last, 0).unwrap().owner, "dan");
    }
}
