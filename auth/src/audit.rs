//! The audit log: actions, their actors and outcomes. It contains no secrets.
//!
//! Its events have the target `audit`, by which they can be collected; they are logged at any level
//! of the log.

use std::net::IpAddr;

use muse_proto::Error;
use tracing::info;

use crate::{
    AuthError,
    usernames::{escape, redact_key},
    users::{User, UserUpdate},
};

/// A line of the audit log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditEvent<'a> {
    /// The requested action, such as "log in".
    pub(crate) action: &'a str,
    /// The acting user; `None` if no user has the name, which may be a password in the wrong field.
    pub(crate) by: Option<&'a str>,
    /// The user that the action changes, if another one.
    pub(crate) user: Option<&'a str>,
    /// The address of the client; `None` for the command line.
    pub(crate) from: Option<IpAddr>,
}

impl AuditEvent<'_> {
    /// Logs that the action was performed.
    pub(crate) fn granted(&self) {
        self.log("granted");
    }

    /// Logs that the action was rejected.
    pub(crate) fn rejected(&self, reason: &str) {
        self.log(reason);
    }

    /// Logs that the action failed, and returns the error for the caller.
    pub(crate) fn failed(&self, failure: AuthError) -> Error {
        let error = Error::from(failure);
        self.rejected(error.reason().as_str());
        error
    }

    /// Logs the outcome of a change of a user, with the number of deleted API keys if there are
    /// any, and returns the user, or the error for the caller.
    pub(crate) fn outcome(&self, outcome: Result<UserUpdate, AuthError>) -> Result<User, Error> {
        match outcome {
            Ok(UserUpdate { user, deleted_keys }) => {
                match deleted_keys {
                    0 => self.granted(),
                    count => self.log(&format!("granted, deleted {count} API keys")),
                }
                Ok(user)
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn log(&self, outcome: &str) {
        let from = self.from.map_or_else(|| "the command line".to_owned(), |address| address.to_string());
        let by = escape(redact_key(self.by.unwrap_or("-")));
        let by = by.as_ref();
        match self.user.map(|user| escape(redact_key(user))).as_deref() {
            Some(user) => info!(target: "audit", action = self.action, by, user, from, outcome),
            None => info!(target: "audit", action = self.action, by, from, outcome),
        }
    }
}
