//! Online backup of a SQLite database.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DbBackend, DbErr, EntityTrait, Statement, sea_query::Expr,
    sqlx::sqlite::SqliteJournalMode,
};

use super::{Store, entities::revocation_log};
use crate::{error::one_line, ids};

/// Gives the revocation log of a copy another name, so that verifiers that followed the original
/// receive everything from the copy: the numbers after the backup differ.
async fn rename_log(path: &Path, name: String) -> Result<(), DbErr> {
    let path = path.to_owned();
    let mut options = ConnectOptions::new("sqlite:");
    options.max_connections(1).sqlx_logging(false).map_sqlx_sqlite_opts(move |sqlite| {
        sqlite.filename(&path).in_memory(false).shared_cache(false).journal_mode(SqliteJournalMode::Delete)
    });
    let db = Database::connect(options).await?;
    let renamed = revocation_log::Entity::update_many()
        .col_expr(revocation_log::Column::Name, Expr::value(name))
        .exec(&db)
        .await;
    db.close().await?;
    renamed.map(drop)
}

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be created, or exists already.
    #[error("cannot create the backup {}: {source}", path.display())]
    File {
        /// The path of the backup.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The copy failed.
    #[error("cannot copy the database: {0}")]
    Copy(String),
    /// Postgres has its own tools.
    #[error("the database is in Postgres: use pg_dump")]
    Postgres,
}

impl Store {
    /// Copies the committed state to a new file with permissions for its owner only. It blocks
    /// neither readers nor writers.
    pub(crate) async fn back_up(&self, path: &Path) -> Result<(), BackupError> {
        if self.db.get_database_backend() != DbBackend::Sqlite {
            return Err(BackupError::Postgres);
        }
        let failed = |source| BackupError::File { path: path.to_owned(), source };
        // SQLite fills an existing empty file; it would create one that others can read.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let copied = self.copy_into(path).await.and_then(|()| file.sync_all().map_err(failed));
        if copied.is_err() {
            let _ = std::fs::remove_file(path);
        }
        copied
    }

    async fn copy_into(&self, path: &Path) -> Result<(), BackupError> {
        let name = path.to_str().ok_or_else(|| BackupError::Copy("the path is not UTF-8".to_owned()))?;
        let copy = Statement::from_sql_and_values(DbBackend::Sqlite, "VACUUM INTO ?", [name.into()]);
        let failed = |failure: DbErr| BackupError::Copy(one_line(&failure));
        self.db.execute_raw(copy).await.map_err(failed)?;
        let name = ids::random().map_err(|failure| BackupError::Copy(failure.to_string()))?;
        rename_log(path, name).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        config::Database,
        store::{MissingFile, Store, fixture::store},
    };

    #[tokio::test]
    async fn backup_has_another_revocation_log() {
        let (folder, store) = store().await;
        let path = folder.path().join("copy.db");
        store.back_up(&path).await.unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path())
                .unwrap()
                .flatten()
                .filter(|file| { file.file_name().to_string_lossy().starts_with("copy") })
                .count(),
            1
        );
        let copy = Store::open(&Database::Sqlite(path), MissingFile::Reject).await.unwrap();
        assert_ne!(copy.revocation_log().await.unwrap(), store.revocation_log().await.unwrap());
    }
}
