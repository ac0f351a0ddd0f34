//! The database. Only this module and its children use SQL.
//!
//! Changes that others must see are made between [`Store::begin`] and [`Store::commit`], which
//! serialise them, also if several processes share a database.

mod api_keys;
mod backup;
mod changes;
mod entities;
mod file;
mod keys;
mod login_failures;
mod migrations;
mod open;
mod quotas;
mod refresh_tokens;
mod requester;
mod revocations;
mod usage;
mod users;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait, TryInsertResult,
};
use tracing::warn;

use crate::error::one_line;

pub(crate) use api_keys::{KeyChangeError, KeyListFilter, KeyPage, mark_deleted};
pub use backup::BackupError;
pub(crate) use changes::ChangeNotifier;
pub(crate) use entities::{api_key::Model as ApiKeyRow, user::Model as UserRow};
pub(crate) use file::MissingFile;
pub(crate) use keys::StoredKey;
pub(crate) use login_failures::Failures;
pub(crate) use quotas::QuotaPage;
pub(crate) use refresh_tokens::{RefreshExchange, RefreshTokenUse};
pub(crate) use requester::{Permission, Requester, Unauthorized};
pub(crate) use revocations::RevocationPage;
pub(crate) use usage::UsageFilter;
pub(crate) use users::{ChangedUser, UserChange, UserChangeError};

/// The Postgres name of the lock for changes, and of the channel that announces them.
const CHANNEL: &str = "muse_auth";

/// A pool of connections to the database. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    db: DatabaseConnection,
    changes: ChangeNotifier,
}

impl Store {
    /// Notifies of changes by this process, and by others while [`Store::watch`] runs.
    pub(crate) fn changes(&self) -> &ChangeNotifier {
        &self.changes
    }

    /// Begins a change, and blocks those of others until the commit.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        begin(&self.db).await
    }

    /// Commits a change, and notifies this process and others.
    async fn commit(&self, change: DatabaseTransaction) -> Result<(), DbErr> {
        if change.get_database_backend() == DbBackend::Postgres {
            change.execute_unprepared(&format!("SELECT pg_notify('{CHANNEL}', '')")).await?;
        }
        change.commit().await?;
        self.changes.notify();
        Ok(())
    }

    /// Moves SQLite's write-ahead log into the database file, as far as no other process reads an
    /// older state. SQLite itself does so once the log has some 4 MB, and until then the file alone
    /// may be an empty backup.
    pub(crate) async fn checkpoint(&self) -> Result<(), DbErr> {
        if self.db.get_database_backend() == DbBackend::Sqlite {
            // PASSIVE does not wait for readers and writers.
            self.db.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await?;
        }
        Ok(())
    }

    /// Closes all connections after a checkpoint. SQLite itself makes one when the last connection
    /// closes, which may be that of another process.
    pub(crate) async fn close(self) {
        if let Err(failure) = self.checkpoint().await {
            warn!(cause = one_line(&failure), "cannot move the write-ahead log into the database");
        }
        // Acknowledged changes are on disk already.
        let _ = self.db.close().await;
    }
}

/// Begins a transaction that excludes other writers.
async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        access_mode: None,
        isolation_level: None,
        // A deferred transaction that reads and then writes fails if another one wrote in between.
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
    };
    let change = db.begin_with_options(options).await?;
    if change.get_database_backend() == DbBackend::Postgres {
        // Released after the commit is visible. Without the lock an id could be visible before a
        // lower one, and a watcher that resumes after it would miss the lower one.
        let lock = format!("SELECT pg_advisory_xact_lock(hashtext('{CHANNEL}'))");
        change.execute_unprepared(&lock).await?;
    }
    Ok(change)
}

/// Whether an `INSERT ... ON CONFLICT DO NOTHING` inserted a row.
fn is_new(inserted: &TryInsertResult<u64>) -> bool {
    matches!(inserted, TryInsertResult::Inserted(1..))
}

#[cfg(test)]
pub(crate) mod fixture {
    use std::sync::Arc;

    use muse_verifier::{Claims, TokenKind};
    use tempfile::TempDir;

    use super::{MissingFile, Permission, Requester, Store};
    use crate::config::Database;

    /// A new database in a temporary folder.
    pub(crate) async fn store() -> (TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&Database::Sqlite(folder.path().join("muse.db")), MissingFile::Create).await.unwrap();
        (folder, store)
    }

    /// The user of a token of this generation, whose family has the id "family".
    pub(crate) fn requester(sub: &str, generation: i64, permission: Permission) -> Requester {
        let claims = Claims {
            fresh: true,
            iat: 0,
            jti: "token".to_owned(),
            kind: TokenKind::Access,
            sub: sub.to_owned(),
            nbf: 0,
            exp: i64::MAX,
            generation,
            family: Some("family".to_owned()),
            admin: true,
        };
        Requester { claims: Arc::new(claims), permission }
    }
}
