//! Checks the tokens that muse-auth signs, where they are used, without asking it.
//!
//! A [`Verifier`] holds the public keys and the ids of the revoked tokens. [`Verifier::follow`] keeps both up to
//! date from a running auth service; [`Verifier::authorize`] is what a request goes through.

#![forbid(unsafe_code)]

pub mod bearer;
mod claims;
mod keys;
mod provider;
mod revoked;
mod sync;
mod verifier;

pub use claims::{Claims, TokenKind};
pub use provider::install_crypto_provider;
pub use verifier::{NBF_LEEWAY_SECONDS, Verifier};
