//! A stored hash, of whichever kind.

use std::hint::black_box;

use super::{
    Cost,
    argon2id::Argon2idHash,
    hash_arena::Memory,
    pbkdf2::{self, Pbkdf2Hash},
};

/// A stored hash of a password.
#[derive(Debug)]
pub(super) enum Stored {
    /// One of ours.
    Argon2id(Argon2idHash),
    /// One that came with its user from the old service.
    Pbkdf2(Pbkdf2Hash),
}

impl Stored {
    /// Takes a stored hash apart. The errors hold nothing of it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let stored = if text.starts_with(pbkdf2::PREFIX) {
            Pbkdf2Hash::parse(text).map(Self::Pbkdf2)
        } else {
            Argon2idHash::parse(text).map(Self::Argon2id)
        };
        stored.map_err(|problem| format!("a stored hash is damaged: {problem}"))
    }

    /// Whether it is the hash of this password.
    pub(super) fn is_of(&self, password: &[u8], memory: &mut Memory) -> Result<bool, String> {
        match self {
            Self::Argon2id(hash) => hash.is_of(password, memory),
            Self::Pbkdf2(hash) => hash.is_of(password),
        }
    }

    /// After a wrong password, computes what was not computed to find that out: whether there is such a user, and
    /// whether it came from the old service, is not to be told by the time.
    pub(super) fn waste_the_rest(
        stored: Option<&Self>,
        password: &[u8],
        cost: Cost,
        memory: &mut Memory,
    ) -> Result<(), String> {
        if !matches!(stored, Some(Self::Argon2id(_))) {
            black_box(Argon2idHash::of_nobody(cost)?.is_of(password, memory)?);
        }
        if !matches!(stored, Some(Self::Pbkdf2(_))) {
            black_box(Pbkdf2Hash::of_nobody()?.is_of(password)?);
        }
        Ok(())
    }

    /// Whether a hash that is made now would be another one.
    pub(super) fn is_outdated(&self, cost: Cost) -> bool {
        match self {
            Self::Argon2id(hash) => !hash.costs(cost),
            Self::Pbkdf2(_) => true,
        }
    }
}
