//! Authenticates callers: by name and password ([`PasswordAuthenticator`]), or by token
//! ([`TokenAuthenticator`]).

mod password;
mod throttle;
mod token;

pub(crate) use password::{LoginMetrics, PasswordAuthenticator};
pub(crate) use throttle::LoginThrottle;
pub(crate) use token::{Session, TokenAuthenticator, admin_required, client_address, token_revoked};
