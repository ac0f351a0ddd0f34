//! The service as its clients see it: each test starts a real one on a free port, with a database of its own.
//!
//! `tests/postgres` runs all but what concerns the file on Postgres, too.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod backend;
mod crash;
mod database;
mod forged;
mod harness;
mod import;
mod keys;
mod login;
mod restart;
mod rotation;
mod throttle;
mod tokens;
mod two_services;
mod users;
mod verifier;
mod watch;
