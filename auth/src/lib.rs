//! The auth service of MUSE as Service: it alone knows users and passwords, and it alone can sign a token.
//!
//! [`run`] is the service, [`Maintenance`] what an operator does beside it.

#![forbid(unsafe_code)]

mod audit;
mod auth_service;
mod clock;
pub mod config;
mod error;
mod first_start;
mod ids;
mod keys;
mod login;
mod maintenance;
mod names;
mod old_service;
mod passwords;
mod revocation_service;
mod server;
mod sessions;
mod store;
mod throttle;
mod tokens;
mod user_service;
mod users;

pub use config::{Config, Database};
pub use error::AuthError;
pub use keys::KeyInfo;
pub use maintenance::{Imported, Maintenance};
pub use names::NameProblem;
pub use passwords::Cost;
pub use server::run;
pub use store::BackupError;
pub use users::{Role, User, Users};
