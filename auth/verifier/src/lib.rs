//! Checks the tokens that muse-auth signs, where they are used, without asking it.
//!
//! A [`Verifier`] holds the public keys and what was revoked. [`Verifier::follow`] keeps both up to date from a
//! running auth service; [`Verifier::authorize`] is what a request goes through.

#![forbid(unsafe_code)]

mod args;
pub mod bearer;
mod claims;
mod keys;
mod locks;
mod provider;
mod revocation_list;
mod signature_cache;
mod sync;
mod sync_state;
mod ttl_map;
mod verifier;

pub use args::AuthArgs;
pub use claims::{Claims, TokenKind};
pub use provider::install_crypto_provider;
pub use verifier::{NBF_LEEWAY_SECONDS, Verifier};
