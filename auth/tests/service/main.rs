//! The service over gRPC: each test starts one on a free port with its own database.
//!
//! `tests/postgres` runs the same tests with Postgres, except those of the SQLite file.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod api_keys;
mod backend;
mod crash;
mod database;
mod forged;
mod harness;
mod import;
mod keys;
mod login;
mod migration;
mod restart;
mod rotation;
mod throttle;
mod tokens;
mod two_services;
mod usage;
mod users;
mod verifier;
mod watch;
