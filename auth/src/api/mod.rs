//! The gRPC services, one file each.

mod auth;
mod revocations;
mod users;

pub(crate) use auth::AuthService;
pub(crate) use revocations::RevocationService;
pub(crate) use users::UserService;
