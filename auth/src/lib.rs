//! The auth service of MUSE as Service: it alone knows users and passwords, and it alone can sign a token.
//!
//! [`run`] is the service; everything else that is public is what its program and its tests need.

#![forbid(unsafe_code)]

mod auth_service;
mod clock;
pub mod config;
mod error;
mod first_start;
mod keys;
mod passwords;
mod revocation_service;
mod server;
mod store;
mod tokens;
mod users;

pub use config::Config;
pub use error::AuthError;
pub use server::run;
pub use users::{User, Users};
