//! The auth service of MUSE as Service, which stores users and passwords and signs tokens.
//!
//! [`run`] runs the service. [`AdminOps`] are the operations of its operator, also while it runs.

#![forbid(unsafe_code)]

mod admin_ops;
mod api;
mod api_keys;
mod audit;
mod authentication;
mod bootstrap;
mod clock;
pub mod config;
mod error;
mod ids;
mod keys;
mod legacy_import;
mod pages;
mod passwords;
mod pruner;
mod server;
mod store;
mod tokens;
mod usage;
mod usernames;
mod users;

pub use admin_ops::{AdminOps, ImportReport};
pub use api_keys::{ApiKey, ApiKeyChange, ApiKeys, NewApiKey};
pub use config::{Config, Database, RefreshRotation};
pub use error::AuthError;
pub use keys::KeyInfo;
pub use passwords::Cost;
pub use server::run;
pub use store::BackupError;
pub use usage::{Quota, QuotaPeriod, Usage, UsageGrouping, UsageQuery, UsageRow};
pub use usernames::NameProblem;
pub use users::{Role, User, UserUpdate, Users};
