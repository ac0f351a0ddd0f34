//! The gRPC services, one file each.

mod auth;
mod keys;
mod revocations;
mod users;

pub(crate) use auth::AuthService;
pub(crate) use keys::KeyService;
pub(crate) use revocations::RevocationService;
pub(crate) use users::UserService;
