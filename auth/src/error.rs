//! What can go wrong, outside of a request and in one.

use std::{fmt::Display, path::PathBuf};

use muse_proto::{Error, Reason};
use sea_orm::DbErr;
use tracing::error;

/// A failed call, by no fault of the caller. The cause goes to the log alone.
pub(crate) fn internal(cause: impl Display) -> Error {
    error!(%cause, "a call failed");
    Error::new(Reason::Internal, "internal error")
}

/// Why the service or a command ended.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The database file cannot be opened.
    #[error("cannot open the database {}: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// The database was opened, and then failed.
    #[error("the database failed: {0}")]
    Database(#[from] DbErr),
    /// A key in the database is not one.
    #[error("the signing key {0} in the database is damaged")]
    DamagedKey(String),
    /// The operating system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A password cannot be hashed.
    #[error("cannot hash a password: {0}")]
    Hash(String),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// A new user's name is not allowed.
    #[error(
        "{0:?} is not a name for a user: it takes 1 to 64 bytes, printable, without white space at its ends"
    )]
    BadName(String),
    /// A new password is not allowed.
    #[error("a password takes 1 to 1024 bytes")]
    BadPassword,
    /// There is a user of this name already.
    #[error("there is a user {0:?} already")]
    UserExists(String),
    /// There is no user of this name.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
}
