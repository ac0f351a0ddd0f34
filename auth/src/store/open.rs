//! Opens the database and brings its tables up to date.

use std::{
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use muse_server::is_loopback_host;
use sea_orm::{
    ActiveValue::Set,
    ConnectOptions, DatabaseConnection, DbErr, EntityTrait,
    sqlx::{
        self,
        postgres::{PgConnectOptions, PgSslMode},
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use sea_orm_migration::MigratorTrait;
use secrecy::ExposeSecret;
use tokio::time::sleep;
use tracing::warn;

use super::{Changes, Store, begin, entities::revocation_log, file, migrations::Migrator};
use crate::{
    AuthError,
    config::Database,
    error::{is_locked, one_line},
    ids,
};

/// SQLite has one writer at a time; the others are for readers, and one watches for changes.
const SQLITE_CONNECTIONS: u32 = 5;
const POSTGRES_CONNECTIONS: u32 = 8;
/// How long a statement waits for a lock of another process, as the command line is one. Like
/// [`ACQUIRE_TIMEOUT`] less than the gateway waits for an answer (`AUTH_TIMEOUT`), which says what
/// is wrong.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the start of a program waits for a lock of another process: one that starts at the same time, with a new database,
/// creates the tables. SQLite does not wait by itself for the lock that the change to a write-ahead log needs.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);

/// Whether a SQLite file that is missing is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    /// A command that reads or changes what is there would otherwise leave an empty database where
    /// a path is mistyped.
    Refuse,
}

impl Store {
    /// Opens the database and updates its tables.
    pub(crate) async fn open(database: &Database, missing: Missing) -> Result<Self, AuthError> {
        let refused = |reason: String| AuthError::Open {
            database: database.to_string(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        if let Database::Sqlite(path) = database {
            file::prepare(path, missing).map_err(|failure| refused(failure.to_string()))?;
        }
        let options = options(database).map_err(|failure| refused(failure.to_string()))?;
        let end = Instant::now() + OPEN_TIMEOUT;
        loop {
            match open(options.clone()).await {
                Ok(db) => return Ok(Self { db, changes: Changes::new() }),
                Err(failure) if is_locked(&failure) && Instant::now() < end => sleep(OPEN_AGAIN_AFTER).await,
                Err(failure) => return Err(refused(one_line(&failure))),
            }
        }
    }
}

async fn open(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    let db = sea_orm::Database::connect(options).await?;
    match migrate(&db).await {
        Ok(()) => Ok(db),
        Err(failure) => {
            // Another attempt has connections of its own.
            let _ = db.close().await;
            Err(failure)
        }
    }
}

fn options(database: &Database) -> Result<ConnectOptions, sqlx::Error> {
    let mut options = match database {
        Database::Sqlite(path) => sqlite(path),
        Database::Postgres(url) => postgres(url.expose_secret())?,
    };
    options.acquire_timeout(ACQUIRE_TIMEOUT).sqlx_logging(false);
    Ok(options)
}

fn sqlite(path: &Path) -> ConnectOptions {
    let path = path.to_owned();
    let mut options = ConnectOptions::new("sqlite:");
    options.max_connections(SQLITE_CONNECTIONS).map_sqlx_sqlite_opts(move |sqlite| {
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

fn postgres(url: &str) -> Result<ConnectOptions, sqlx::Error> {
    // The URL is read here, so that an error about it does not come from a layer that prints it.
    let parsed = PgConnectOptions::from_str(url)?.application_name("muse-auth");
    if is_unprotected(&parsed) {
        warn!(
            host = parsed.get_host(),
            "the way to the database may be in plain text and the server another one: say sslmode=verify-full in its URL"
        );
    }
    let mut options = ConnectOptions::new("postgres:///");
    options.max_connections(POSTGRES_CONNECTIONS).map_sqlx_postgres_opts(move |_| parsed.clone());
    Ok(options)
}

/// Whether whoever is between here and the server may read and change all, and nobody has said that this is well.
fn is_unprotected(options: &PgConnectOptions) -> bool {
    let is_here = options.get_socket().is_some() || is_loopback_host(options.get_host());
    !is_here && matches!(options.get_ssl_mode(), PgSslMode::Allow | PgSslMode::Prefer)
}

/// Applies what is missing of the tables' history; one process at a time.
async fn migrate(db: &DatabaseConnection) -> Result<(), DbErr> {
    // Without the attempt to write that the other way begins with, since others may be serving.
    if Migrator::get_pending_migrations_read_only(db).await.is_ok_and(|pending| pending.is_empty()) {
        return Ok(());
    }
    let turn = begin(db).await?;
    Migrator::up(&turn, None).await?;
    if revocation_log::Entity::find().one(&turn).await?.is_none() {
        let name = ids::random().map_err(|failure| DbErr::Custom(failure.to_string()))?;
        let log = revocation_log::ActiveModel { name: Set(name) };
        revocation_log::Entity::insert(log).exec_without_returning(&turn).await?;
    }
    turn.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_nobody_vouches_for_is_unprotected() {
        for (url, expected) in [
            ("postgres://db.example.org/muse", true),
            ("postgres://10.0.0.1/muse?sslmode=allow", true),
            ("postgres://db.example.org/muse?sslmode=verify-full", false),
            ("postgres://db.example.org/muse?sslmode=disable", false),
            ("postgres://localhost/muse", false),
            ("postgres://127.0.0.2/muse", false),
            ("postgres://muse@db.example.org/muse?host=/run/postgresql", false),
        ] {
            let options = PgConnectOptions::from_str(url).expect("it is a URL");
            assert_eq!(is_unprotected(&options), expected, "{url}");
        }
    }
}
