//! Verifies the tokens of muse-auth in the services that use them, without a call for each request.
//!
//! A [`Verifier`] has the public keys, the revocation list, the API keys and the states of quotas.
//! [`Verifier::follow`] updates them from a running auth service, [`Verifier::authenticate`] verifies
//! the credential of a request: a token or an API key.

#![forbid(unsafe_code)]

pub mod api_keys;
mod args;
pub mod bearer;
mod claims;
mod credential;
mod keys;
mod provider;
mod quotas;
mod revocation_list;
mod signature_cache;
mod sync;
mod sync_state;
mod ttl_map;
mod verifier;

pub use args::AuthArgs;
pub use claims::{Claims, TokenKind};
pub use credential::{Credential, Principal, key_not_accepted, token_not_accepted};
pub use provider::install_crypto_provider;
pub use quotas::{QuotaScope, QuotaStatus};
pub use verifier::{NBF_LEEWAY_SECONDS, Verifier};
