//! TLS between users and the gateway, and between the services, with generated certificates and
//! real clients.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod plaintext;
mod services;
mod users;
