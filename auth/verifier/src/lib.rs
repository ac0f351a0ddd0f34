//! Verifies the tokens of muse-auth in the services that use them, without a call for each request.
//!
//! A [`Verifier`] has the public keys and the revocation list. [`Verifier::follow`] updates both
//! from a running auth service, [`Verifier::authorize`] verifies the token of a request.

#![forbid(unsafe_code)]

mod args;
pub mod bearer;
mod claims;
mod keys;
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
