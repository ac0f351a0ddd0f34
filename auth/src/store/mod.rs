//! The database: the one place that knows SQL is behind this.
//!
//! Whatever changes something goes through [`Store::begin`] and [`Store::commit`]: changes have one order, in which
//! everybody sees them, also where several processes share a database.

mod backup;
mod changes;
mod entities;
mod file;
mod keys;
mod login_failures;
mod migrations;
mod open;
mod refresh_tokens;
mod revocations;
mod users;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait, TryInsertResult,
};
use tracing::warn;

use crate::error::one_line;

pub use backup::BackupError;
pub(crate) use changes::Changes;
pub(crate) use entities::user::Model as UserRow;
pub(crate) use keys::StoredKey;
pub(crate) use login_failures::Failures;
pub(crate) use open::Missing;
pub(crate) use refresh_tokens::Exchange;
pub(crate) use revocations::Page;
pub(crate) use users::{Change, ChangeError};

/// Postgres' name for our lock on changes, and for the channel on which they are announced.
const CHANNEL: &str = "muse_auth";

/// A pool of connections to the database. A clone is another handle on it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    db: DatabaseConnection,
    changes: Changes,
}

impl Store {
    /// Says when something has changed, by this process or, once [`Store::watch`] runs, by another one.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Begins to change something; nobody else does until the commit.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        begin(&self.db).await
    }

    /// Makes a change last, and tells everybody.
    async fn commit(&self, change: DatabaseTransaction) -> Result<(), DbErr> {
        if change.get_database_backend() == DbBackend::Postgres {
            change.execute_unprepared(&format!("SELECT pg_notify('{CHANNEL}', '')")).await?;
        }
        change.commit().await?;
        self.changes.announce();
        Ok(())
    }

    /// Moves SQLite's write-ahead log into the database file, as far as no other process reads an
    /// older state. SQLite itself does so once the log has some 4 MB, and until then the file alone
    /// may be an empty backup.
    pub(crate) async fn checkpoint(&self) -> Result<(), DbErr> {
        if self.db.get_database_backend() == DbBackend::Sqlite {
            // Passive: it waits for nobody.
            self.db.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await?;
        }
        Ok(())
    }

    /// Closes all connections, after a checkpoint: the last connection makes one, but another
    /// process may have one open.
    pub(crate) async fn close(self) {
        if let Err(failure) = self.checkpoint().await {
            warn!(cause = one_line(&failure), "cannot move the write-ahead log into the database");
        }
        // What was answered is on disk already; there is nobody left to tell.
        let _ = self.db.close().await;
    }
}

/// Begins a transaction that no other one writes beside.
async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        access_mode: None,
        isolation_level: None,
        // Not deferred: who has read and then wants to write would be refused if another was faster.
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
    };
    let change = db.begin_with_options(options).await?;
    if change.get_database_backend() == DbBackend::Postgres {
        // Released after the commit can be seen. Without it an id could be seen before a lower one, and who resumes
        // after it would miss the lower one.
        let lock = format!("SELECT pg_advisory_xact_lock(hashtext('{CHANNEL}'))");
        change.execute_unprepared(&lock).await?;
    }
    Ok(change)
}

/// Whether an insertion that does nothing on a conflict inserted something.
fn is_new(inserted: &TryInsertResult<u64>) -> bool {
    matches!(inserted, TryInsertResult::Inserted(1..))
}

#[cfg(test)]
pub(crate) mod fixture {
    use tempfile::TempDir;

    use super::{Missing, Store};
    use crate::config::Database;

    /// A new database in a folder of its own.
    pub(crate) async fn store() -> (TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Database::Sqlite(folder.path().join("muse.db")), Missing::Create).await.unwrap();
        (folder, store)
    }
}
