//! Stored hashes of both kinds.

use std::hint::black_box;

use super::{
    Cost,
    argon2id::Argon2idHash,
    hash_arena::HashArena,
    pbkdf2::{self, Pbkdf2Hash},
};

/// A stored hash of a password.
#[derive(Debug)]
pub(super) enum StoredHash {
    /// A hash of this service.
    Argon2id(Argon2idHash),
    /// A hash of an imported user.
    Pbkdf2(Pbkdf2Hash),
}

impl StoredHash {
    /// Parses a stored hash. The errors do not quote it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let stored = if text.starts_with(pbkdf2::PREFIX) {
            Pbkdf2Hash::parse(text).map(Self::Pbkdf2)
        } else {
            Argon2idHash::parse(text).map(Self::Argon2id)
        };
        stored.map_err(|problem| format!("a stored hash is damaged: {problem}"))
    }

    /// Whether it is the hash of this password.
    pub(super) fn matches(&self, password: &[u8], arena: &mut HashArena) -> Result<bool, String> {
        match self {
            Self::Argon2id(hash) => hash.matches(password, arena),
            Self::Pbkdf2(hash) => hash.matches(password),
        }
    }

    /// After a wrong password, computes a hash of each other kind, so that the time reveals neither
    /// whether the user exists nor whether it was imported.
    pub(super) fn equalize_time(
        stored: Option<&Self>,
        password: &[u8],
        cost: Cost,
        arena: &mut HashArena,
    ) -> Result<(), String> {
        if !matches!(stored, Some(Self::Argon2id(_))) {
            black_box(Argon2idHash::dummy(cost)?.matches(password, arena)?);
        }
        if !matches!(stored, Some(Self::Pbkdf2(_))) {
            black_box(Pbkdf2Hash::dummy()?.matches(password)?);
        }
        Ok(())
    }

    /// Whether a new hash would have another algorithm or cost.
    pub(super) fn is_outdated(&self, cost: Cost) -> bool {
        match self {
            Self::Argon2id(hash) => !hash.has_cost(cost),
            Self::Pbkdf2(_) => true,
        }
    }
}
