//! Databases as SQLAlchemy created them for the old service, and invalid ones.

use std::{fs, sync::LazyLock};

use proptest::{prelude::*, sample::Index};
use sea_orm::sqlx::sqlite::SqliteJournalMode;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;

/// What `SQLAlchemy.create_all` writes for the models of the old service.
const SCHEMA: &str = "
    CREATE TABLE users (
        id INTEGER NOT NULL, username VARCHAR(120) NOT NULL, password VARCHAR(120) NOT NULL,
        PRIMARY KEY (id), UNIQUE (username)
    );
    CREATE TABLE revoked_tokens (id INTEGER NOT NULL, jti VARCHAR(120), PRIMARY KEY (id));";
/// The same columns without constraints.
const LAX_SCHEMA: &str = "
    CREATE TABLE users (id INTEGER, username TEXT, password TEXT);
    CREATE TABLE revoked_tokens (id INTEGER, jti TEXT);";
/// The hash of "admin" by passlib 1.7.4.
const HASH: &str = "$pbkdf2-sha256$29000$hHAuJWQMgXDOuVdqTcl57w$s5kFi56lwZ315ldmwkcxBJ3MyQgb43KE/T5VVWhIWRY";

async fn run_sql(path: &Path, mode: SqliteJournalMode, sql: &str) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).in_memory(false).create_if_missing(true);
    let mut connection = options.journal_mode(mode).connect().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection
}

/// A folder with a closed database.
async fn database(sql: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    run_sql(&path, SqliteJournalMode::Delete, sql).await.close().await.unwrap();
    (folder, path)
}

async fn import_error(path: &Path) -> String {
    let error = read(path).await.unwrap_err().to_string();
    error.strip_prefix(&format!("cannot import {}: ", path.display())).unwrap().to_owned()
}

fn names_in(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn users_are_imported_with_their_hashes() {
    let (folder, path) = database(&format!(
        "{SCHEMA}
         INSERT INTO users (username, password) VALUES ('zoe', '{HASH}'), ('Ångström', '{HASH}'), ('ann', '{HASH}');
         INSERT INTO revoked_tokens (jti) VALUES ('1c0f'), ('1c10'), (NULL);"
    ))
    .await;
    let before = fs::read(&path).unwrap();
    let old = read(&path).await.unwrap();
    let users = ["zoe", "Ångström", "ann"]
        .map(|name| LegacyUser { name: name.to_owned(), password_hash: HASH.to_owned() });
    assert_eq!(old, LegacyDatabase { users: users.into(), rejected: Vec::new(), revoked_tokens: 3 });
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names_in(&folder), ["app.db"]);
}

#[tokio::test]
async fn database_without_users_is_empty() {
    let (_folder, path) = database(SCHEMA).await;
    let empty = LegacyDatabase { users: Vec::new(), rejected: Vec::new(), revoked_tokens: 0 };
    assert_eq!(read(&path).await.unwrap(), empty);
}

#[tokio::test]
async fn invalid_users_are_rejected_with_the_problem() {
    let (_folder, path) = database(&format!(
        "{LAX_SCHEMA}
         INSERT INTO users VALUES
             (1, 'ann', '{HASH}'), (2, 'ann', '{HASH}'), (3, NULL, '{HASH}'), (4, x'616e6e', '{HASH}'),
             (5, CAST(x'ff' AS TEXT), '{HASH}'), (NULL, NULL, NULL), (7, printf('%.*c', 65, 'x'), '{HASH}'),
             (8, printf('%.*c', 2000000, 'x'), '{HASH}'), (9, 'two' || char(10) || 'lines', '{HASH}'),
             (10, '', '{HASH}'), (11, 'null', NULL), (12, 'blob', x'00'), (13, 'bcrypt', '$2b$12$abc'),
             (14, 'huge', '{HASH}' || printf('%.*c', 2000000, 'A')), (15, 'plain', 'admin'), (16, 'bob', '{HASH}');"
    ))
    .await;
    let old = read(&path).await.unwrap();
    let names: Vec<_> = old.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["ann", "bob"]);
    let too_long = format!("\"{}\"", "x".repeat(65));
    let rejected: Vec<_> = old.rejected.iter().map(|(who, why)| (who.as_str(), why.as_str())).collect();
    assert_eq!(
        rejected,
        [
            ("\"ann\"", "an earlier user has this name"),
            ("with id 3", "the name is not a short text"),
            ("with id 4", "the name is not a short text"),
            ("with id 5", "the name is not a short text"),
            ("without id", "the name is not a short text"),
            (&too_long, "it is not a valid name for a user"),
            ("with id 8", "the name is not a short text"),
            ("\"two\\nlines\"", "it is not a valid name for a user"),
            ("\"\"", "it is not a valid name for a user"),
            ("\"null\"", "the hash of the password is not a short text"),
            ("\"blob\"", "the hash of the password is not a short text"),
            ("\"bcrypt\"", "the hash of the password: not a hash of the kind pbkdf2-sha256"),
            ("\"huge\"", "the hash of the password is not a short text"),
            ("\"plain\"", "the hash of the password: not a hash of the kind pbkdf2-sha256"),
        ]
    );
}

#[tokio::test]
async fn other_file_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    assert!(import_error(&path).await.starts_with("No such file"));
    assert_eq!(names_in(&folder), [""; 0], "and none is created");
    assert_eq!(import_error(folder.path()).await, "it is not a file");
    let page = "x".repeat(4096);
    for text in ["", "users", &page, "SQLite format 3\0"] {
        fs::write(&path, text).unwrap();
        assert_eq!(import_error(&path).await, "it is not a SQLite database");
    }
    fs::write(&path, format!("SQLite format 3\0{page}")).unwrap();
    assert_eq!(import_error(&path).await, "file is not a database");
}

#[tokio::test]
async fn other_database_is_rejected() {
    let ours = LAX_SCHEMA.replace("username", "name").replace("password", "password_hash");
    let without_column = LAX_SCHEMA.replace("jti", "token");
    let view = LAX_SCHEMA.replace("CREATE TABLE users", "CREATE TABLE other")
        + "CREATE VIEW users AS
               WITH RECURSIVE endless(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM endless)
               SELECT id, 'ann' || id AS username, 'x' AS password FROM endless;";
    let computed = LAX_SCHEMA.replace("password TEXT", "password TEXT AS (hex(zeroblob(400000000)))");
    for (schema, problem) in [
        (&*ours, "it is a database of this service, not of the old one"),
        ("", "it is not a database of the old service: it has no users.id"),
        (&without_column, "it is not a database of the old service: it has no revoked_tokens.jti"),
        (&view, "it is not a database of the old service: it has no users.id"),
        (&computed, "it is not a database of the old service: it has no users.password"),
    ] {
        let (_folder, path) = database(&format!("PRAGMA user_version = 1; {schema}")).await;
        assert_eq!(import_error(&path).await, problem);
    }
}

#[tokio::test]
async fn damaged_file_is_rejected() {
    let (_folder, path) = database(&format!(
        "{SCHEMA}
         WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 500)
         INSERT INTO users (username, password) SELECT 'user' || n, '{HASH}' FROM up;"
    ))
    .await;
    let whole = fs::read(&path).unwrap();
    assert_eq!(read(&path).await.unwrap().users.len(), 500);
    for page in 1..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xff);
        fs::write(&path, damaged).unwrap();
        let error = import_error(&path).await;
        assert!(error.contains("malformed") || error.starts_with("it is damaged: "), "page {page}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(import_error(&path).await.contains("malformed"));
}

#[tokio::test]
async fn write_ahead_log_is_neither_created_nor_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut service = run_sql(&path, SqliteJournalMode::Wal, SCHEMA).await;
    let in_use = import_error(&path).await;
    assert!(in_use.starts_with("it is in use, or was not closed"), "{in_use}");
    let insert = format!("INSERT INTO users (username, password) VALUES ('ann', '{HASH}')");
    sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut service).await.unwrap();
    service.close().await.unwrap();
    assert_eq!(names_in(&folder), ["app.db"]);
    assert_eq!(read(&path).await.unwrap().users.len(), 1);
    assert_eq!(names_in(&folder), ["app.db"]);
}

#[tokio::test]
async fn database_with_a_journal_is_rejected() {
    let (_folder, path) = database(SCHEMA).await;
    fs::write(path.with_extension("db-journal"), "something to roll back").unwrap();
    assert!(import_error(&path).await.starts_with("it is in use, or was not closed"));
}

#[tokio::test]
async fn path_may_look_like_a_url() {
    let (folder, path) = database(SCHEMA).await;
    for name in ["file:app.db?mode=rwc#%41", ":memory:", "ä ö"] {
        let renamed = folder.path().join(name);
        fs::copy(&path, &renamed).unwrap();
        read(&renamed).await.unwrap();
    }
}

static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    Runtime::new().unwrap().block_on(async {
        let (_folder, path) = database(&format!(
            "PRAGMA page_size = 512; {SCHEMA}
             INSERT INTO users (username, password) VALUES
                 ('ann', '{HASH}'), ('bob', '{HASH}'), ('zoe', '{HASH}'), ('long', '{HASH}' || printf('%.*c', 999, 'A'));
             INSERT INTO revoked_tokens (jti) VALUES ('1c0f'), ('1c10');"
        ))
        .await;
        fs::read(path).unwrap()
    })
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// If the file is accepted, the damage is in a text or in unused space.
    #[test]
    fn damaged_file_does_not_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        end in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut bytes = WHOLE.clone();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        fs::write(&path, &bytes).unwrap();
        match Runtime::new().unwrap().block_on(read(&path)) {
            Ok(old) => {
                let is_usable = |user: &LegacyUser| is_valid_existing(&user.name) && check_pbkdf2(&user.password_hash).is_ok();
                prop_assert!(old.users.iter().all(is_usable));
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.starts_with("cannot import ") && !text.contains('\n'), "{text}");
            }
        }
        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
        prop_assert_eq!(names_in(&folder), ["app.db"]);
    }
}
