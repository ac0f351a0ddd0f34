//! What a verifier accepts and refuses.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod follow;
mod properties;
mod revocation;
mod signing;
mod verify;
