//! The gRPC services, one file each.

mod auth;
mod keys;
mod paging;
mod revocations;
mod usage;
mod users;

pub(crate) use auth::AuthService;
pub(crate) use keys::KeyService;
pub(crate) use revocations::RevocationService;
pub(crate) use usage::UsageService;
pub(crate) use users::UserService;
