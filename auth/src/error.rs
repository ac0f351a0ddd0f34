//! What can go wrong, outside of a request and in one.

use std::{fmt::Display, io, path::PathBuf, sync::LazyLock, time::Duration};

use muse_proto::{Error, Reason};
use muse_server::ConfigError;
use muse_telemetry::log_throttle::LogThrottle;
use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr,
    sqlx::{self, error::DatabaseError, sqlite::SqliteError},
};
use tracing::error;

use crate::usernames::NameProblem;

/// A failed call, by no fault of the caller. The cause goes to the log alone.
pub(crate) fn internal(cause: impl Display) -> Error {
    error!(%cause, "a call failed");
    Error::new(Reason::Internal, "internal error")
}

/// A failed call, since a field of its request is not what it must be.
pub(crate) fn invalid(field: &str, text: impl Into<String>) -> Error {
    Error::new(Reason::InvalidArgument, text).with_field(field)
}

/// What clients are told while another process has locked the database.
const BUSY: &str = "the user database is busy, try again";

/// A failed call, since the database does not do what it should.
pub(crate) fn database_failed(failure: DbErr) -> Error {
    static LOGGED: LazyLock<LogThrottle> = LazyLock::new(LogThrottle::default);
    let (what, text) = match state(&failure) {
        State::Failed => return internal(failure),
        State::Busy => ("the database is locked by another process", BUSY),
        State::Exhausted => {
            let what = "no connection to the database in time: it is locked, overloaded or out of reach";
            (what, "the user database does not answer in time, try again")
        }
        State::OutOfReach => ("the database is out of reach", "the database is out of reach"),
    };
    // It fails each call until it is over.
    if LOGGED.allows(what) {
        error!(cause = %failure, "{what}");
    }
    Error::new(Reason::Unavailable, text).with_retry_after(Duration::from_secs(1))
}

/// What a failure says of the database.
enum State {
    /// Another process has locked it (SQLite).
    Busy,
    /// All connections are in use.
    Exhausted,
    OutOfReach,
    /// It works, but not this statement.
    Failed,
}

fn state(failure: &DbErr) -> State {
    match sql_error(failure) {
        // Postgres' classes: connection exception, operator intervention.
        Some(sqlx::Error::Database(said)) => match said.code() {
            _ if is_lock(&**said) => State::Busy,
            Some(code) if code.starts_with("08") || code.starts_with("57P") => State::OutOfReach,
            _ => State::Failed,
        },
        Some(sqlx::Error::PoolTimedOut) => State::Exhausted,
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) => State::OutOfReach,
        Some(_) => State::Failed,
        None if matches!(failure, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => State::Exhausted,
        None if matches!(failure, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) => State::OutOfReach,
        None => State::Failed,
    }
}

/// Whether a failure is that another process has locked the database.
pub(crate) fn is_locked(failure: &DbErr) -> bool {
    matches!(state(failure), State::Busy)
}

fn sql_error(failure: &DbErr) -> Option<&sqlx::Error> {
    match failure {
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => Some(cause),
        _ => None,
    }
}

/// SQLite's result codes "busy" and "locked", of which the extended ones have the reason in the
/// higher bits.
fn is_lock(said: &dyn DatabaseError) -> bool {
    said.try_downcast_ref::<SqliteError>().is_some()
        && said
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// What the database said, without the layers above it.
pub(crate) fn one_line(failure: &DbErr) -> String {
    let text = match sql_error(failure) {
        Some(sqlx::Error::Database(said)) if is_lock(&**said) => {
            format!("{} by another process", said.message())
        }
        Some(sqlx::Error::Database(said)) => said.message().to_owned(),
        Some(other) => other.to_string(),
        None => failure.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why the service or a command ended.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// An option cannot be.
    #[error(transparent)]
    Option(#[from] ConfigError),
    /// The database cannot be opened.
    #[error("cannot open the database {database}: {reason}")]
    Open {
        /// Which one, without a password.
        database: String,
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// The database was opened, and then failed.
    #[error("the database failed: {}", one_line(.0))]
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
    #[error("{name:?} is not a name for a user: {problem}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
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
            AuthError::BadName { .. } => return invalid("username", failure.to_string()),
            AuthError::BadPassword(_) => return invalid("password", failure.to_string()),
            AuthError::UserExists(_) => Reason::UserExists,
            AuthError::NoSuchUser(_) => Reason::NoSuchUser,
            AuthError::LastAdmin(_) => Reason::LastAdmin,
            other => return internal(other),
        };
        Self::new(reason, failure.to_string())
    }
}
