//! The auth service of MUSE as Service: it alone knows users and passwords, and it alone can sign a token.
//!
//! [`run`] is the service, [`AdminOps`] what an operator does beside it.

#![forbid(unsafe_code)]

mod admin_ops;
mod api;
mod audit;
mod authentication;
mod bootstrap;
mod clock;
pub mod config;
mod error;
mod ids;
mod keys;
mod legacy_import;
mod passwords;
mod server;
mod store;
mod tokens;
mod usernames;
mod users;

pub use admin_ops::{AdminOps, Imported};
pub use config::{Config, Database, RefreshRotation};
pub use error::AuthError;
pub use keys::KeyInfo;
pub use passwords::Cost;
pub use server::run;
pub use store::BackupError;
pub use usernames::NameProblem;
pub use users::{Role, User, Users};
