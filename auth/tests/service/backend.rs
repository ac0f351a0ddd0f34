//! The SQLite database of a test.

use muse_auth::Database;
use tempfile::TempDir;

pub(crate) fn new_database(folder: &TempDir) -> Database {
    Database::Sqlite(folder.path().join("muse.db"))
}
