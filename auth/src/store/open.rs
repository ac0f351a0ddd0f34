//! Opens the database and migrates its tables.

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

use super::{
    ChangeNotifier, Store, begin,
    entities::revocation_log,
    file::{self, MissingFile},
    migrations::Migrator,
};
use crate::{
    AuthError,
    config::Database,
    error::{is_locked, one_line},
    ids,
};

/// One for the writer, one to watch for changes, the others for readers.
const SQLITE_CONNECTIONS: u32 = 5;
const POSTGRES_CONNECTIONS: u32 = 8;
/// How long a statement waits for a lock of another process. Like [`ACQUIRE_TIMEOUT`] less than the
/// gateway's `AUTH_TIMEOUT`, so that the error reaches the client.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the start waits for a lock of another process, which may be creating the tables. SQLite
/// itself does not wait for the lock that it needs to switch to a write-ahead log.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
const OPEN_RETRY_AFTER: Duration = Duration::from_millis(50);
/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);

impl Store {
    /// Opens the database and updates its tables.
    pub(crate) async fn open(database: &Database, missing: MissingFile) -> Result<Self, AuthError> {
        let open_error = |reason: String| AuthError::Open {
            database: database.to_string(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        if let Database::Sqlite(path) = database {
            file::prepare(path, missing).map_err(|failure| open_error(failure.to_string()))?;
        }
        let options = options(database).map_err(|failure| open_error(failure.to_string()))?;
        let end = Instant::now() + OPEN_TIMEOUT;
        loop {
            match open(options.clone()).await {
                Ok(db) => return Ok(Self { db, changes: ChangeNotifier::new() }),
                Err(failure) if is_locked(&failure) && Instant::now() < end => sleep(OPEN_RETRY_AFTER).await,
                Err(failure) => return Err(open_error(one_line(&failure))),
            }
        }
    }
}

async fn open(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    let db = sea_orm::Database::connect(options).await?;
    match migrate(&db).await {
        Ok(()) => Ok(db),
        Err(failure) => {
            // A retry opens other connections.
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
            // Not as a URL, in which '%' and '?' have a meaning.
            .filename(&path)
            .in_memory(false)
            .shared_cache(false)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged revocation survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
    });
    options
}

fn postgres(url: &str) -> Result<ConnectOptions, sqlx::Error> {
    // Parsed here, because another layer would print the URL in its errors.
    let parsed = PgConnectOptions::from_str(url)?.application_name("muse-auth");
    if is_unprotected(&parsed) {
        warn!(
            host = parsed.get_host(),
            "the connection to the database is not protected by TLS: set sslmode=verify-full in its URL"
        );
    }
    let mut options = ConnectOptions::new("postgres:///");
    options.max_connections(POSTGRES_CONNECTIONS).map_sqlx_postgres_opts(move |_| parsed.clone());
    Ok(options)
}

/// Whether the traffic to a remote server can be read or changed, unless the URL allows it
/// explicitly.
fn is_unprotected(options: &PgConnectOptions) -> bool {
    let is_local = options.get_socket().is_some() || is_loopback_host(options.get_host());
    !is_local && matches!(options.get_ssl_mode(), PgSslMode::Allow | PgSslMode::Prefer)
}

/// Applies the pending migrations; one process at a time.
async fn migrate(db: &DatabaseConnection) -> Result<(), DbErr> {
    // The read-only check does not block other processes that serve.
    if Migrator::get_pending_migrations_read_only(db).await.is_ok_and(|pending| pending.is_empty()) {
        return Ok(());
    }
    let change = begin(db).await?;
    Migrator::up(&change, None).await?;
    if revocation_log::Entity::find().one(&change).await?.is_none() {
        let name = ids::random().map_err(|failure| DbErr::Custom(failure.to_string()))?;
        let log = revocation_log::ActiveModel {
            name: Set(name),
            key_version: Set(1),
            key_pruned_to: Set(0),
            quota_version: Set(0),
        };
        revocation_log::Entity::insert(log).exec_without_returning(&change).await?;
    }
    change.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_postgres_without_verified_tls_is_unprotected() {
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
