//! What can go wrong, outside of a request and in one.

use std::{fmt::Display, io, path::PathBuf, time::Duration};

use muse_chassis::BadOption;
use muse_proto::{Error, Reason};
use sea_orm::{DbErr, RuntimeErr, sqlx};
use tracing::error;

/// A failed call, by no fault of the caller. The cause goes to the log alone.
pub(crate) fn internal(cause: impl Display) -> Error {
    error!(%cause, "a call failed");
    Error::new(Reason::Internal, "internal error")
}

/// A failed call, since a field of its request is not what it must be.
pub(crate) fn invalid(field: &str, text: impl Into<String>) -> Error {
    Error::new(Reason::InvalidArgument, text).with_field(field)
}

/// A failed call, since the database does not do what it should.
pub(crate) fn database_failed(cause: DbErr) -> Error {
    if !is_out_of_reach(&cause) {
        return internal(cause);
    }
    error!(%cause, "the database is out of reach");
    Error::new(Reason::Unavailable, "the database is out of reach").with_retry_after(Duration::from_secs(1))
}

fn is_out_of_reach(failure: &DbErr) -> bool {
    match failure {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
            match &**cause {
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => true,
                // Postgres' classes: connection exception, operator intervention; and SQLite's "busy".
                sqlx::Error::Database(said) => said
                    .code()
                    .is_some_and(|code| code.starts_with("08") || code.starts_with("57P") || code == "5"),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Why the service or a command ended.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// An option cannot be.
    #[error(transparent)]
    Option(#[from] BadOption),
    /// The database cannot be opened.
    #[error("cannot open the database {database}: {reason}")]
    Open {
        /// Which one, without a password.
        database: String,
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// The database was opened, and then failed.
    #[error("the database failed: {0}")]
    Database(#[from] DbErr),
    /// The database of the old service cannot be read.
    #[error("cannot import {}: {reason}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// A key in the database is not one.
    #[error("the signing key {0} in the database is damaged")]
    DamagedKey(String),
    /// The service runs with other keys than those that the command knows.
    #[error("{}", if *derived {
        "the keys are derived from a JWT_SECRET_KEY: this command needs the one that the service has"
    } else {
        "no key is derived from this JWT_SECRET_KEY: start the service with it first, or leave it out"
    })]
    KeysOfAnotherSecret {
        /// Whether they are derived from a secret.
        derived: bool,
    },
    /// There is no such key, or it is needed.
    #[error("{0}")]
    Key(String),
    /// The operating system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A password cannot be hashed.
    #[error("cannot hash a password: {0}")]
    Hash(Error),
    /// The operating system gives no threads.
    #[error("cannot start the threads that hash passwords: {0}")]
    Threads(#[from] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Everyone knows the admin's password.
    #[error(
        "users come from other machines, and the password of \"admin\" is \"admin\": change it with \
         `muse-auth user passwd admin`"
    )]
    DefaultPassword,
    /// A new user's name is not allowed.
    #[error(
        "{0:?} is not a name for a user: it takes 1 to 64 bytes, printable, without white space at its ends"
    )]
    BadName(String),
    /// A new password is not allowed.
    #[error("{0}")]
    BadPassword(&'static str),
    /// There is a user of this name already.
    #[error("there is a user {0:?} already")]
    UserExists(String),
    /// There is no user of this name.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// Nobody would be left who may manage users.
    #[error("{0:?} is the last one who may manage users")]
    LastAdmin(String),
}

/// As a call's answer.
impl From<AuthError> for Error {
    fn from(failure: AuthError) -> Self {
        let reason = match failure {
            AuthError::Database(cause) => return database_failed(cause),
            AuthError::Hash(refused) => return refused,
            AuthError::BadName(_) => return invalid("username", failure.to_string()),
            AuthError::BadPassword(_) => return invalid("password", failure.to_string()),
            AuthError::UserExists(_) => Reason::UserExists,
            AuthError::NoSuchUser(_) => Reason::NoSuchUser,
            AuthError::LastAdmin(_) => Reason::LastAdmin,
            other => return internal(other),
        };
        Self::new(reason, failure.to_string())
    }
}
