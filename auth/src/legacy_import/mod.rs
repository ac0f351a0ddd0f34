//! Import from the database of the service that this one replaces.
//!
//! It is a SQLite file that SQLAlchemy created, with the tables `users(id, username, password)` and
//! `revoked_tokens(id, jti)`. Its contents are untrusted, and it may be the only copy: nothing is
//! written, neither into the file nor beside it.

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    error::Error,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use futures::TryStreamExt;
use sea_orm::sqlx::{
    self, ConnectOptions, Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use crate::{AuthError, passwords::check_pbkdf2, usernames::is_valid_existing};

/// The columns of a database of the old service.
const COLUMNS: [&str; 5] =
    ["users.id", "users.username", "users.password", "revoked_tokens.id", "revoked_tokens.jti"];
/// Bound on the bytes of a text that are read, so that no row exhausts the memory. Names and
/// password hashes are shorter.
const MAX_TEXT_BYTES: u32 = 4096;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A user that can be imported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LegacyUser {
    /// A valid name.
    pub(crate) name: String,
    /// A valid hash, `$pbkdf2-sha256$…`.
    pub(crate) password_hash: String,
}

/// The contents of a database of the old service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LegacyDatabase {
    /// The valid users, in the order of the table.
    pub(crate) users: Vec<LegacyUser>,
    /// The invalid users: the printable name, and the problem.
    pub(crate) rejected: Vec<(String, String)>,
    /// The number of revoked tokens. Tokens of the old service are not valid here.
    pub(crate) revoked_tokens: u64,
}

/// Reads the database of the old service.
pub(crate) async fn read(path: &Path) -> std::result::Result<LegacyDatabase, AuthError> {
    read_file(path).await.map_err(|failure| {
        let reason = match failure.downcast_ref() {
            Some(sqlx::Error::Database(cause)) => cause.message().to_owned(),
            _ => failure.to_string(),
        };
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        AuthError::Import { path: path.to_owned(), reason }
    })
}

async fn read_file(path: &Path) -> Result<LegacyDatabase> {
    // Absolute, because SQLite parses a path that begins with "file:" as a URL.
    let path = path.canonicalize()?;
    let has_wal = has_wal(&path)?;
    check_closed(&path)?;
    let mut connection = SqliteConnectOptions::new()
        .filename(&path)
        .in_memory(false)
        .read_only(true)
        // Otherwise reading a database in WAL mode creates a log. It also disables locks.
        .immutable(has_wal)
        // The schema is untrusted: it must not call functions.
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .disable_statement_logging()
        .connect()
        .await?;
    let mut snapshot = connection.begin().await?;
    check_tables(&mut snapshot).await?;
    check_pages(&mut snapshot).await?;
    read_tables(&mut snapshot).await
}

/// Checks that it is a SQLite file, and returns whether it is in WAL mode.
fn has_wal(path: &Path) -> Result<bool> {
    // A pipe would block.
    if !path.metadata()?.is_file() {
        return Err("it is not a file".into());
    }
    // https://sqlite.org/fileformat2.html#the_database_header
    let mut header = Vec::new();
    File::open(path)?.take(20).read_to_end(&mut header)?;
    match header.get(18..20) {
        Some(versions) if header.starts_with(b"SQLite format 3\0") => Ok(versions.contains(&2)),
        _ => Err("it is not a SQLite database".into()),
    }
}

/// Checks that there is no journal or write-ahead log with changes beside the file, which a
/// read-only connection could not apply.
fn check_closed(path: &Path) -> Result<()> {
    for ending in ["-journal", "-wal"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(ending);
        let beside = PathBuf::from(beside);
        if beside.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            let beside = beside.display();
            return Err(
                format!("it is in use, or was not closed: stop the old service first ({beside})").into()
            );
        }
    }
    Ok(())
}

/// Checks that it has the tables of the old service.
async fn check_tables(connection: &mut SqliteConnection) -> Result<()> {
    // No views and generated columns: they are computed, possibly without end.
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT tables.name || '.' || columns.name \
         FROM pragma_table_list AS tables JOIN pragma_table_info(tables.name, tables.schema) AS columns \
         WHERE tables.schema = 'main' AND tables.type = 'table' AND tables.name IN ('users', 'revoked_tokens')",
    )
    .fetch_all(connection)
    .await?;
    let has = |wanted: &str| columns.iter().any(|column| column == wanted);
    if has("users.password_hash") {
        return Err("it is a database of this service, not of the old one".into());
    }
    match COLUMNS.into_iter().find(|column| !has(column)) {
        Some(missing) => Err(format!("it is not a database of the old service: it has no {missing}").into()),
        None => Ok(()),
    }
}

/// Checks the integrity of the file, so that no part of the users is missing.
async fn check_pages(connection: &mut SqliteConnection) -> Result<()> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    if found == "ok" { Ok(()) } else { Err(format!("it is damaged: {found}").into()) }
}

async fn read_tables(connection: &mut SqliteConnection) -> Result<LegacyDatabase> {
    let revoked: i64 =
        sqlx::query_scalar("SELECT count(*) FROM revoked_tokens").fetch_one(&mut *connection).await?;
    let mut database =
        LegacyDatabase { users: Vec::new(), rejected: Vec::new(), revoked_tokens: revoked.unsigned_abs() };
    let mut names = HashSet::new();
    let mut rows = sqlx::query(
        "SELECT CASE WHEN typeof(id) = 'integer' THEN id END, \
                CASE WHEN typeof(username) = 'text' AND octet_length(username) <= $1 THEN username END, \
                CASE WHEN typeof(password) = 'text' AND octet_length(password) <= $1 THEN password END \
         FROM users",
    )
    .bind(MAX_TEXT_BYTES)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        match read_user(&row) {
            Ok(user) if names.insert(user.name.clone()) => database.users.push(user),
            Ok(user) => {
                database
                    .rejected
                    .push((format!("{:?}", user.name), "an earlier user has this name".to_owned()));
            }
            Err(rejected) => database.rejected.push(rejected),
        }
    }
    drop(rows);
    Ok(database)
}

/// Reads a user, or returns the printable name and the problem.
fn read_user(row: &SqliteRow) -> std::result::Result<LegacyUser, (String, String)> {
    let Some(name) = text(row, 1) else {
        let id: Option<i64> = row.try_get(0).ok().flatten();
        let user = id.map_or_else(|| "without id".to_owned(), |id| format!("with id {id}"));
        return Err((user, "the name is not a short text".to_owned()));
    };
    if !is_valid_existing(&name) {
        return Err((format!("{name:?}"), "it is not a valid name for a user".to_owned()));
    }
    let rejected = |problem: String| (format!("{name:?}"), problem);
    let Some(password_hash) = text(row, 2) else {
        return Err(rejected("the hash of the password is not a short text".to_owned()));
    };
    check_pbkdf2(&password_hash)
        .map_err(|problem| rejected(format!("the hash of the password: {problem}")))?;
    Ok(LegacyUser { name, password_hash })
}

/// The text of a column, if it is one and valid UTF-8.
fn text(row: &SqliteRow, column: usize) -> Option<String> {
    row.try_get(column).ok().flatten()
}
