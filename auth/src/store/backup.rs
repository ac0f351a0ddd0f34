//! Online backup of a SQLite database.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sea_orm::{ConnectionTrait, DbBackend, Statement};

use super::Store;
use crate::error::one_line;

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
        self.db.execute_raw(copy).await.map(drop).map_err(|failure| BackupError::Copy(one_line(&failure)))
    }
}
