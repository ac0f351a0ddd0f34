//! API keys: their format, the table in which a verifier looks them up, and the record of their use.

mod format;
mod table;
mod usage;

pub use format::{KEY_PREFIX, KeyId, ParsedKey, SECRET_BYTES, compose, is_api_key};
pub(crate) use table::{KeyTable, KeyUpdate};
pub(crate) use usage::KeyUseLog;
pub use usage::network;

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

/// The error of a key whose id is unknown or whose secret is wrong: which of them is not disclosed.
#[must_use]
pub fn key_unknown() -> Error {
    Error::new(Reason::KeyUnknown, "There is no such API key")
}

/// The error of a deleted key.
#[must_use]
pub fn key_revoked() -> Error {
    Error::new(Reason::KeyRevoked, "The API key has been revoked")
}

/// The error of an expired key.
#[must_use]
pub fn key_expired() -> Error {
    Error::new(Reason::KeyExpired, "The API key has expired")
}

/// The error of a disabled key.
#[must_use]
pub fn key_disabled() -> Error {
    Error::new(Reason::KeyDisabled, "The API key is disabled")
}
