//! The service as its clients see it: each test starts a real one on a free port, with a database of its own.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod database;
mod forged;
mod harness;
mod login;
mod restart;
mod tokens;
mod verifier;
mod watch;
