//! Opens the database and brings its tables up to date.

use std::{path::Path, time::Duration};

use sea_orm::{
    ConnectOptions, Database, DbErr,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};
use sea_orm_migration::MigratorTrait;

use super::{Store, file, migrations::Migrator};
use crate::AuthError;

/// SQLite has one writer at a time; the others are for readers.
const CONNECTIONS: u32 = 4;
/// How long a statement waits for another process, as the command line is one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the database in `path`, or makes it.
    pub(crate) async fn open(path: &Path) -> Result<Self, AuthError> {
        let refused =
            |reason: String| AuthError::Open { path: path.to_owned(), reason: in_one_line(&reason) };
        file::prepare(path).map_err(|failure| refused(failure.to_string()))?;
        let db = Database::connect(options(path)).await.map_err(|failure| refused(cause(failure)))?;
        Migrator::up(&db, None).await.map_err(|failure| refused(cause(failure)))?;
        Ok(Self { db })
    }
}

fn options(path: &Path) -> ConnectOptions {
    let path = path.to_owned();
    let mut options = ConnectOptions::new("sqlite:");
    options.max_connections(CONNECTIONS).sqlx_logging(false).map_sqlx_sqlite_opts(move |sqlite| {
        sqlite
            // As a path, since in a URL '%' and '?' would mean something.
            .filename(&path)
            .in_memory(false)
            .shared_cache(false)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            // A revocation that was answered is there after a power cut, too.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
    });
    options
}

/// What SQLite said, without the layers above it.
fn cause(failure: DbErr) -> String {
    use sea_orm::{RuntimeErr, sqlx::Error};
    match failure {
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => match &*cause {
            Error::Database(said) => said.message().to_owned(),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
