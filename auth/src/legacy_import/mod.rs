//! Reads the database of the service that this one replaces.
//!
//! It is a SQLite file that SQLAlchemy made, with the tables `users(id, username, password)` and
//! `revoked_tokens(id, jti)`. It comes from elsewhere, so nothing in it is taken for granted; and it may be the only
//! copy, so nothing is written, neither into it nor beside it.

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

use crate::{AuthError, passwords::is_pbkdf2, usernames::may_exist};

/// Without one of these it is not what the old service had.
const COLUMNS: [&str; 5] =
    ["users.id", "users.username", "users.password", "revoked_tokens.id", "revoked_tokens.jti"];
/// Bytes that are read of a text, so that no row fills the memory. No name and no hash of a password is longer.
const LONGEST_TEXT: u32 = 4096;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A user of the old service, who can be one here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OldUser {
    /// The name, which can be one here.
    pub(crate) name: String,
    /// `$pbkdf2-sha256$…`, with which passwords can be compared.
    pub(crate) password_hash: String,
}

/// What the database of the old service holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OldDatabase {
    /// The users, in the order in which the old service looked for them.
    pub(crate) users: Vec<OldUser>,
    /// Those who cannot be users here: who, as can be printed, and why.
    pub(crate) unusable: Vec<(String, String)>,
    /// How many tokens were revoked. No token of the old service means anything here.
    pub(crate) revoked_tokens: u64,
}

/// Reads the database of the old service.
pub(crate) async fn read(path: &Path) -> std::result::Result<OldDatabase, AuthError> {
    read_file(path).await.map_err(|failure| {
        let reason = match failure.downcast_ref() {
            Some(sqlx::Error::Database(said)) => said.message().to_owned(),
            _ => failure.to_string(),
        };
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        AuthError::Import { path: path.to_owned(), reason }
    })
}

async fn read_file(path: &Path) -> Result<OldDatabase> {
    // In full, since SQLite would take one that begins with "file:" for a URL.
    let path = path.canonicalize()?;
    let has_wal = has_wal(&path)?;
    check_closed(&path)?;
    let mut connection = SqliteConnectOptions::new()
        .filename(&path)
        .in_memory(false)
        .read_only(true)
        // Without this a database with a write-ahead log is not read without making one. With it there are no locks.
        .immutable(has_wal)
        // The schema is not ours: it does not get to run functions, and nothing is taken at its word.
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

/// Checks that it is a SQLite file, and tells whether changes go to a log beside it first.
fn has_wal(path: &Path) -> Result<bool> {
    // Otherwise a pipe would be waited for.
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

/// Checks that nothing lies beside the file that belongs into it: it could not be written there from here.
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

/// Checks that it is what the old service has.
async fn check_tables(connection: &mut SqliteConnection) -> Result<()> {
    // Tables proper: what is in a view or a generated column is computed, and may have no end.
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

/// Checks that the file is in order, so that half of the users are not taken for all.
async fn check_pages(connection: &mut SqliteConnection) -> Result<()> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
    if found == "ok" { Ok(()) } else { Err(format!("it is damaged: {found}").into()) }
}

async fn read_tables(connection: &mut SqliteConnection) -> Result<OldDatabase> {
    let revoked: i64 =
        sqlx::query_scalar("SELECT count(*) FROM revoked_tokens").fetch_one(&mut *connection).await?;
    let mut old =
        OldDatabase { users: Vec::new(), unusable: Vec::new(), revoked_tokens: revoked.unsigned_abs() };
    let mut names = HashSet::new();
    let mut rows = sqlx::query(
        "SELECT CASE WHEN typeof(id) = 'integer' THEN id END, \
                CASE WHEN typeof(username) = 'text' AND octet_length(username) <= $1 THEN username END, \
                CASE WHEN typeof(password) = 'text' AND octet_length(password) <= $1 THEN password END \
         FROM users",
    )
    .bind(LONGEST_TEXT)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        match read_user(&row) {
            Ok(user) if names.insert(user.name.clone()) => old.users.push(user),
            Ok(user) => {
                old.unusable.push((format!("{:?}", user.name), "an earlier user has this name".to_owned()));
            }
            Err(unusable) => old.unusable.push(unusable),
        }
    }
    drop(rows);
    Ok(old)
}

/// Reads a user, or says who cannot be one and why.
fn read_user(row: &SqliteRow) -> std::result::Result<OldUser, (String, String)> {
    let Some(name) = text(row, 1) else {
        let id: Option<i64> = row.try_get(0).ok().flatten();
        let who = id.map_or_else(|| "without id".to_owned(), |id| format!("with id {id}"));
        return Err((who, "the name is not a short text".to_owned()));
    };
    if !may_exist(&name) {
        return Err((format!("{name:?}"), "it is not a name for a user here".to_owned()));
    }
    let unusable = |why: String| (format!("{name:?}"), why);
    let Some(password_hash) = text(row, 2) else {
        return Err(unusable("the hash of the password is not a short text".to_owned()));
    };
    is_pbkdf2(&password_hash).map_err(|problem| unusable(format!("the hash of the password: {problem}")))?;
    Ok(OldUser { name, password_hash })
}

/// A text, unless it was not one, or not in Unicode.
fn text(row: &SqliteRow, column: usize) -> Option<String> {
    row.try_get(column).ok().flatten()
}
