//! The file that the service keeps everything in.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use muse_auth::{Config, Maintenance, Role};
use secrecy::SecretString;

use crate::harness::folder;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

async fn refused(path: &Path) -> String {
    let error = Maintenance::open(Config::new(path)).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot open the database {}: ", path.display())), "{error}");
    assert!(!error.contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn it_is_for_its_owner_only() {
    let (folder, _) = folder();
    let path = folder.path().join("new/folder/muse.db");
    let maintenance = Maintenance::open(Config::new(&path)).await.unwrap();
    let users = maintenance.users().unwrap();
    users.add("ann", SecretString::from("correct horse"), Role::User).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["muse.db", "muse.db-wal", "muse.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    maintenance.close().await;
}

#[tokio::test]
async fn odd_paths_are_paths() {
    let (folder, _) = folder();
    for name in ["a?b=c.db", "100%25.db", "with space.db", "ü.db", ":memory:.db", "#x.db"] {
        let path = folder.path().join(name);
        Maintenance::open(Config::new(&path)).await.unwrap().close().await;
        assert!(path.is_file(), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let (folder, _) = folder();
    assert!(refused(folder.path()).await.contains("directory"));

    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, "this is not a database, whatever its name says. ".repeat(100)).unwrap();
    assert!(refused(&garbage).await.contains("not a database"));

    let below_a_file = garbage.join("muse.db");
    refused(&below_a_file).await;
    refused(Path::new("/proc/no/such/folder/muse.db")).await;
    refused(Path::new("/dev/null")).await;
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    use sea_orm::{ConnectionTrait, Database};
    let (folder, _) = folder();
    let path = folder.path().join("app.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let old = Database::connect(url).await.unwrap();
    old.execute_unprepared("CREATE TABLE users (id INTEGER, username TEXT, password TEXT)").await.unwrap();
    old.close().await.unwrap();
    assert!(refused(&path).await.contains("users"));
}
