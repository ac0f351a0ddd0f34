//! The SQLite file of the service.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use muse_auth::{AdminOps, Config, Database, Role};
use muse_proto::Reason;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use secrecy::SecretString;
use tokio::time::Instant;

use crate::harness::{PASSWORD, Service, folder};

/// Another connection to the database of a service, as of another process.
async fn connect(config: &Config) -> DatabaseConnection {
    let Database::Sqlite(path) = &config.database else { panic!("not SQLite") };
    let mut options = sea_orm::ConnectOptions::new(format!("sqlite://{}?mode=rw", path.display()));
    options.max_connections(1);
    sea_orm::Database::connect(options).await.unwrap()
}

#[tokio::test]
async fn wrong_password_on_a_full_disk_is_401_and_counts() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    service.tokens().await;
    let other = connect(&config).await;
    for table in ["login_failures", "known_addresses", "users"] {
        for event in ["INSERT", "UPDATE"] {
            let trigger = format!(
                "CREATE TRIGGER full_{table}_{event} BEFORE {event} ON {table} \
                 BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            );
            other.execute_unprepared(&trigger).await.unwrap();
        }
    }
    let mut outcomes = Vec::new();
    for _ in 0..25 {
        outcomes.push(service.login("ann", "a guess").await.unwrap_err().reason());
    }
    assert_eq!(outcomes[..20], [Reason::BadCredentials; 20]);
    assert_eq!(outcomes[20..], [Reason::TooManyAttempts; 5]);
    assert!(service.login("admin", PASSWORD).await.is_ok(), "the right one logs in");
    service.stop().await;
}

#[tokio::test]
async fn locked_database_is_named_and_logins_continue() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, _) = service.tokens().await;
    let other = connect(&config).await;
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();

    let began = Instant::now();
    let rejected = service.revoke(&access).await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::Unavailable);
    assert!(rejected.message().contains("database is busy"), "{rejected:?}");
    // Within the AUTH_TIMEOUT of the gateway.
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    assert_eq!(service.login("admin", "a guess").await.unwrap_err().reason(), Reason::BadCredentials);
    assert!(service.login("admin", PASSWORD).await.is_ok());

    let operator = AdminOps::open_existing(config.clone()).await.unwrap();
    let users = operator.users().unwrap();
    assert_eq!(users.list().await.unwrap().len(), 1, "reading does not wait");
    let rejected = users.add("ann", SecretString::from(PASSWORD), Role::User).await.unwrap_err().to_string();
    assert!(rejected.contains("locked by another process"), "{rejected}");

    other.execute_unprepared("ROLLBACK").await.unwrap();
    assert!(service.revoke(&access).await.is_ok());
    operator.close().await;
    service.stop().await;
}

#[tokio::test]
async fn clean_stop_leaves_all_data_in_the_database_file() {
    let (folder, config) = folder();
    let service = Service::start(&config).await;
    service.tokens().await;
    // Another process has the database open, so the last connection of this one makes no checkpoint
    // when it is closed.
    let operator = AdminOps::open_existing(config.clone()).await.unwrap();
    operator.users().unwrap().add("ann", SecretString::from(PASSWORD), Role::User).await.unwrap();
    service.stop().await;

    let Database::Sqlite(path) = &config.database else { panic!("not SQLite") };
    let copy = folder.path().join("copy.db");
    fs::copy(path, &copy).unwrap();
    operator.close().await;
    let copied = AdminOps::open_existing(Config::new(copy)).await.unwrap();
    assert!(copied.users().unwrap().exists("ann").await.unwrap());
    copied.close().await;
}

#[tokio::test]
async fn missing_database_is_not_created() {
    let (folder, _) = folder();
    let path = folder.path().join("typo.db");
    let rejected = AdminOps::open_existing(Config::new(&path)).await.unwrap_err().to_string();
    assert!(rejected.contains("typo.db") && rejected.contains("no such file"), "{rejected}");
    assert!(!path.exists());
}

#[tokio::test]
async fn existing_user_with_a_deceptive_name_still_logs_in() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    service.tokens().await;
    let other = connect(&config).await;
    let name = "ann\u{202e}";
    other.execute_unprepared(&format!("UPDATE users SET username = '{name}'")).await.unwrap();
    assert!(service.login(name, PASSWORD).await.is_ok());
    let operator = AdminOps::open_existing(config.clone()).await.unwrap();
    let listed = operator.users().unwrap().list().await.unwrap();
    assert_eq!(listed[0].printable_name(), "ann\\u{202e}");
    operator.close().await;
    service.stop().await;
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

async fn rejection(path: &Path) -> String {
    let error = AdminOps::open(Config::new(path)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot open the database {}: ", path.display())), "{error}");
    assert!(!error.contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn new_database_is_readable_by_its_owner_only() {
    let (folder, _) = folder();
    let path = folder.path().join("new/folder/muse.db");
    let operations = AdminOps::open(Config::new(&path)).await.unwrap();
    let users = operations.users().unwrap();
    users.add("ann", SecretString::from("correct horse"), Role::User).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["muse.db", "muse.db-wal", "muse.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    operations.close().await;
}

#[tokio::test]
async fn database_path_may_have_special_characters() {
    let (folder, _) = folder();
    for name in ["a?b=c.db", "100%25.db", "with space.db", "ü.db", ":memory:.db", "#x.db"] {
        let path = folder.path().join(name);
        AdminOps::open(Config::new(&path)).await.unwrap().close().await;
        assert!(path.is_file(), "{name}");
    }
}

#[tokio::test]
async fn unusable_database_is_named_in_the_error() {
    let (folder, _) = folder();
    assert!(rejection(folder.path()).await.contains("directory"));

    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, "this is not a database, whatever its name says. ".repeat(100)).unwrap();
    assert!(rejection(&garbage).await.contains("not a database"));

    let below_a_file = garbage.join("muse.db");
    rejection(&below_a_file).await;
    rejection(Path::new("/proc/no/such/folder/muse.db")).await;
    rejection(Path::new("/dev/null")).await;
}

#[tokio::test]
async fn database_of_another_program_is_rejected() {
    use sea_orm::{ConnectionTrait, Database};
    let (folder, _) = folder();
    let path = folder.path().join("app.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let old = Database::connect(url).await.unwrap();
    old.execute_unprepared("CREATE TABLE users (id INTEGER, username TEXT, password TEXT)").await.unwrap();
    old.close().await.unwrap();
    assert!(rejection(&path).await.contains("users"));
}
