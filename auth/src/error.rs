//! Errors of calls ([`Error`], from the table of errors), and of the program ([`AuthError`]).

use std::{fmt::Display, io, path::PathBuf, sync::LazyLock, time::Duration};

use muse_proto::{Error, Reason};
use muse_server::ConfigError;
use muse_telemetry::log_throttle::LogThrottle;
use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr,
    sqlx::{self, error::DatabaseError, sqlite::SqliteError},
};
use tracing::error;

use crate::{
    authentication::{admin_required, token_revoked},
    store::Unauthorized,
    usernames::{NameProblem, redact_key},
};

/// An internal error, whose cause is logged and not sent to the client.
pub(crate) fn internal(cause: impl Display) -> Error {
    error!(%cause, "a call failed");
    Error::new(Reason::Internal, "internal error")
}

/// The error of a call with an invalid field.
pub(crate) fn invalid(field: &str, text: impl Into<String>) -> Error {
    Error::new(Reason::InvalidArgument, text).with_field(field)
}

/// The message to clients while another process has locked the database.
const BUSY: &str = "the user database is busy, try again";

/// The error of a call in which the database failed. The cause is logged.
pub(crate) fn database_failed(failure: DbErr) -> Error {
    static LOG_THROTTLE: LazyLock<LogThrottle> = LazyLock::new(LogThrottle::default);
    let (log_message, text) = match classify(&failure) {
        DatabaseFault::StatementFailed => return internal(failure),
        DatabaseFault::Busy => ("the database is locked by another process", BUSY),
        DatabaseFault::Exhausted => {
            let log_message =
                "no connection to the database in time: it is locked, overloaded or unreachable";
            (log_message, "the user database does not respond in time, try again")
        }
        DatabaseFault::Unreachable => ("the database is unreachable", "the database is unreachable"),
    };
    // Each call fails in the meantime.
    if LOG_THROTTLE.allows(log_message) {
        error!(cause = %failure, "{log_message}");
    }
    Error::new(Reason::Unavailable, text).with_retry_after(Duration::from_secs(1))
}

/// The state of the database that a failure indicates.
enum DatabaseFault {
    /// Another process has locked it (SQLite).
    Busy,
    /// All connections are in use.
    Exhausted,
    Unreachable,
    /// It works, but the statement failed.
    StatementFailed,
}

fn classify(failure: &DbErr) -> DatabaseFault {
    match sql_error(failure) {
        // The Postgres classes "connection exception" and "operator intervention".
        Some(sqlx::Error::Database(cause)) => match cause.code() {
            _ if is_lock(&**cause) => DatabaseFault::Busy,
            Some(code) if code.starts_with("08") || code.starts_with("57P") => DatabaseFault::Unreachable,
            _ => DatabaseFault::StatementFailed,
        },
        Some(sqlx::Error::PoolTimedOut) => DatabaseFault::Exhausted,
        Some(sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) => {
            DatabaseFault::Unreachable
        }
        Some(_) => DatabaseFault::StatementFailed,
        None if matches!(failure, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => {
            DatabaseFault::Exhausted
        }
        None if matches!(failure, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) => DatabaseFault::Unreachable,
        None => DatabaseFault::StatementFailed,
    }
}

/// Whether a statement failed because another process has locked the database.
pub(crate) fn is_locked(failure: &DbErr) -> bool {
    matches!(classify(failure), DatabaseFault::Busy)
}

fn sql_error(failure: &DbErr) -> Option<&sqlx::Error> {
    match failure {
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => Some(cause),
        _ => None,
    }
}

/// SQLite's result codes "busy" and "locked". Extended codes have the reason in the higher bits.
fn is_lock(cause: &dyn DatabaseError) -> bool {
    cause.try_downcast_ref::<SqliteError>().is_some()
        && cause
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The message of the database itself, in one line.
pub(crate) fn one_line(failure: &DbErr) -> String {
    let text = match sql_error(failure) {
        Some(sqlx::Error::Database(cause)) if is_lock(&**cause) => {
            format!("{} by another process", cause.message())
        }
        Some(sqlx::Error::Database(cause)) => cause.message().to_owned(),
        Some(other) => other.to_string(),
        None => failure.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why the service or a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// An option is invalid.
    #[error(transparent)]
    Option(#[from] ConfigError),
    /// The database cannot be opened.
    #[error("cannot open the database {database}: {reason}")]
    Open {
        /// The database, without user and password.
        database: String,
        /// The cause, in one line.
        reason: String,
    },
    /// The database failed after it was opened.
    #[error("the database failed: {}", one_line(.0))]
    Database(#[from] DbErr),
    /// The database of the old service cannot be read.
    #[error("cannot import {}: {reason}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// The cause, in one line.
        reason: String,
    },
    /// A stored key is invalid.
    #[error("the signing key {0} in the database is damaged")]
    DamagedKey(String),
    /// The keys of the service do not belong to the secret of the command.
    #[error("{}", if *derived {
        "the keys are derived from a JWT_SECRET_KEY: run this command with the one of the service"
    } else {
        "no key is derived from this JWT_SECRET_KEY: start the service with it first, or omit it"
    })]
    SecretMismatch {
        /// Whether the keys are derived from a secret.
        derived: bool,
    },
    /// There is no such key, or it is in use.
    #[error("{0}")]
    Key(String),
    /// The operating system provides no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A password cannot be hashed.
    #[error("cannot hash a password: {0}")]
    Hash(Error),
    /// The operating system starts no threads.
    #[error("cannot start the threads that hash passwords: {0}")]
    Threads(#[from] io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// `admin` has the default password.
    #[error(
        "users connect from other machines, and the password of \"admin\" is \"admin\": change it with \
         `muse-auth user passwd admin`"
    )]
    DefaultPassword,
    /// A new user's name is not allowed.
    #[error("{:?} is not a name for a user: {problem}", redact_key(name))]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// A new password is not allowed.
    #[error("{0}")]
    BadPassword(&'static str),
    /// A user has this name already.
    #[error("there is a user {0:?} already")]
    UserExists(String),
    /// No user has this name.
    #[error("there is no user {:?}", redact_key(.0))]
    NoSuchUser(String),
    /// There is no such API key, or it belongs to another user.
    #[error("there is no such API key")]
    NoSuchKey,
    /// An argument for an API key is invalid.
    #[error("{field}: {problem}")]
    BadKey {
        /// The argument.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The user has too many API keys.
    #[error(
        "{owner:?} has {limit} API keys, or ten times as many with those deleted within the last 30 days"
    )]
    TooManyKeys {
        /// The user.
        owner: String,
        /// How many are allowed.
        limit: u64,
    },
    /// The requester's token was revoked meanwhile, or does not permit the action.
    #[error("{0}")]
    Rejected(Error),
    /// No enabled admin would remain.
    #[error("{0:?} is the last enabled admin")]
    LastAdmin(String),
}

impl From<Unauthorized> for AuthError {
    fn from(failure: Unauthorized) -> Self {
        match failure {
            Unauthorized::TokenRevoked => Self::Rejected(token_revoked()),
            Unauthorized::NotAdmin => Self::Rejected(admin_required()),
            Unauthorized::Database(cause) => Self::Database(cause),
        }
    }
}

/// The error of a call.
impl From<AuthError> for Error {
    fn from(failure: AuthError) -> Self {
        let reason = match failure {
            AuthError::Database(cause) => return database_failed(cause),
            AuthError::Hash(error) | AuthError::Rejected(error) => return error,
            AuthError::BadName { .. } => return invalid("username", failure.to_string()),
            AuthError::BadPassword(_) => return invalid("password", failure.to_string()),
            AuthError::BadKey { field, .. } => return invalid(field, failure.to_string()),
            AuthError::NoSuchKey => Reason::NoSuchKey,
            AuthError::TooManyKeys { .. } => Reason::TooManyKeys,
            AuthError::UserExists(_) => Reason::UserExists,
            AuthError::NoSuchUser(_) => Reason::NoSuchUser,
            AuthError::LastAdmin(_) => Reason::LastAdmin,
            other => return internal(other),
        };
        Self::new(reason, failure.to_string())
    }
}
