//! TLS: of users with the gateway, and of the services with each other. Certificates are made here, and the clients are those
//! that users have.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod plaintext;
mod services;
mod users;
