//! The auth service of MUSE as Service: it alone knows users and passwords, and it alone can sign a token.
//!
//! [`run`] is the service, [`AdminOps`] what an operator does beside it.

#![forbid(unsafe_code)]

mod admin_ops;
mod audit;
mod auth_service;
mod authentication;
mod bootstrap;
mod clock;
pub mod config;
mod error;
mod ids;
mod keys;
mod legacy_import;
mod login;
mod names;
mod passwords;
mod revocation_service;
mod server;
mod store;
mod throttle;
mod tokens;
mod user_service;
mod users;

pub use admin_ops::{AdminOps, Imported};
pub use config::{Config, Database};
pub use error::AuthError;
pub use keys::KeyInfo;
pub use names::NameProblem;
pub use passwords::Cost;
pub use server::run;
pub use store::BackupError;
pub use users::{Role, User, Users};
