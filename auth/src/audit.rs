//! The audit log: who did what, from where, and whether it was granted. Never a secret.
//!
//! Its events have the target `audit`, at which they can be collected; they are in the log whatever its level is.

use std::net::IpAddr;

use tracing::info;

use crate::usernames::escaped;

/// What a line of the audit log says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    /// What was asked for, as in "log in".
    pub(crate) action: &'a str,
    /// Who asked. A name that no user has is not written: it may be a password in the wrong field.
    pub(crate) by: Option<&'a str>,
    /// Whom it is about, if not the one who asked.
    pub(crate) user: Option<&'a str>,
    /// Where the request came from; `None` for the command line.
    pub(crate) from: Option<IpAddr>,
}

impl Event<'_> {
    /// It was done.
    pub(crate) fn granted(&self) {
        self.write("granted");
    }

    /// It was refused, and why.
    pub(crate) fn refused(&self, why: &str) {
        self.write(why);
    }

    fn write(&self, outcome: &str) {
        let from = self.from.map_or_else(|| "the command line".to_owned(), |address| address.to_string());
        let by = escaped(self.by.unwrap_or("-"));
        let by = by.as_ref();
        match self.user.map(escaped).as_deref() {
            Some(user) => info!(target: "audit", action = self.action, by, user, from, outcome),
            None => info!(target: "audit", action = self.action, by, from, outcome),
        }
    }
}
