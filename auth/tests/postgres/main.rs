//! The tests of `tests/service` with a Postgres server that they start.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod backend;
mod tls;

#[path = "../service/api_keys.rs"]
mod api_keys;
#[path = "../service/crash.rs"]
mod crash;
#[path = "../service/forged.rs"]
mod forged;
#[path = "../service/harness.rs"]
mod harness;
#[path = "../service/import.rs"]
mod import;
#[path = "../service/keys.rs"]
mod keys;
#[path = "../service/login.rs"]
mod login;
#[path = "../service/restart.rs"]
mod restart;
#[path = "../service/rotation.rs"]
mod rotation;
#[path = "../service/throttle.rs"]
mod throttle;
#[path = "../service/tokens.rs"]
mod tokens;
#[path = "../service/two_services.rs"]
mod two_services;
#[path = "../service/usage.rs"]
mod usage;
#[path = "../service/users.rs"]
mod users;
#[path = "../service/verifier.rs"]
mod verifier;
#[path = "../service/watch.rs"]
mod watch;
