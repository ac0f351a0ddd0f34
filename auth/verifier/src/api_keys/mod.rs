//! API keys: their format, the table in which a verifier looks them up, and the record of their use.

mod format;
mod table;
mod usage;

pub use format::{KEY_PREFIX, KeyId, ParsedKey, SECRET_BYTES, compose, is_api_key};
pub(crate) use table::KeyTable;
pub(crate) use usage::{KeyUseLog, message};
pub use usage::{SECONDS_PER_DAY, network};

use std::{fmt, sync::Arc};

use muse_proto::{Error, Reason};

/// An API key that was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedKey {
    /// Its permanent id.
    pub id: KeyId,
    /// The user whom its calls count for.
    pub owner: Arc<str>,
    /// Whether its calls are a bulk job.
    pub bulk: bool,
}

impl fmt::Debug for VerifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedKey")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// What decides whether a key is valid.
#[derive(Clone, Copy)]
pub struct KeyState<'a> {
    /// The SHA-256 of the secret; empty for a deleted key.
    pub digest: &'a [u8],
    /// Whether the key was deleted.
    pub deleted: bool,
    /// Whether the key is disabled.
    pub disabled: bool,
    /// Unix time in seconds; 0 for never.
    pub expires_at: i64,
}

impl KeyState<'_> {
    /// Verifies that a presented key has this secret and is valid at the time `now`.
    ///
    /// # Errors
    ///
    /// [`Reason::KeyRevoked`], [`Reason::KeyUnknown`], [`Reason::KeyDisabled`],
    /// [`Reason::KeyExpired`], in this order.
    pub fn verify(self, key: &ParsedKey, now: i64) -> Result<(), Error> {
        if self.deleted {
            return Err(Error::new(Reason::KeyRevoked, "The API key has been revoked"));
        }
        if !key.matches(self.digest) {
            return Err(key_unknown());
        }
        if self.disabled {
            return Err(Error::new(Reason::KeyDisabled, "The API key is disabled"));
        }
        if self.expires_at != 0 && self.expires_at <= now {
            return Err(Error::new(Reason::KeyExpired, "The API key has expired"));
        }
        Ok(())
    }
}

/// The error of a key whose id is unknown or whose secret is wrong: which of them is not disclosed.
#[must_use]
pub fn key_unknown() -> Error {
    Error::new(Reason::KeyUnknown, "There is no such API key")
}
