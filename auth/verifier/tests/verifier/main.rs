//! Tests of the verifier by its public interface.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod api_keys;
mod follow;
mod properties;
mod quotas;
mod revocation;
mod signing;
mod verify;
