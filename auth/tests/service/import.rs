//! Imported users log in with their passwords.

use std::path::Path;

use muse_auth::{Database, ImportReport};
use muse_proto::Reason;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use secrecy::ExposeSecret;

use crate::harness::{PASSWORD, Service, admin_ops, folder};

/// The hash of "admin" by passlib.
const HASH: &str = "$pbkdf2-sha256$29000$hHAuJWQMgXDOuVdqTcl57w$s5kFi56lwZ315ldmwkcxBJ3MyQgb43KE/T5VVWhIWRY";

async fn connect(path: &Path) -> DatabaseConnection {
    sea_orm::Database::connect(format!("sqlite://{}?mode=rwc", path.display())).await.unwrap()
}

async fn hash_of(database: &Database, name: &str) -> String {
    let db = match database {
        Database::Sqlite(path) => connect(path).await,
        Database::Postgres(url) => sea_orm::Database::connect(url.expose_secret()).await.unwrap(),
    };
    let query = format!("SELECT password_hash FROM users WHERE username = '{name}'");
    let statement = sea_orm::Statement::from_string(db.get_database_backend(), query);
    let row = db.query_one_raw(statement).await.unwrap().unwrap();
    db.close().await.unwrap();
    row.try_get("", "password_hash").unwrap()
}

#[tokio::test]
async fn login_of_imported_user_upgrades_the_hash() {
    let (folder, config) = folder();
    let service = Service::start(&config).await;
    // After this the first user exists.
    service.tokens().await;
    let path = folder.path().join("app.db");
    let old = connect(&path).await;
    for statement in [
        "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, username VARCHAR(120) NOT NULL UNIQUE, password VARCHAR(120) NOT NULL)",
        "CREATE TABLE revoked_tokens (id INTEGER NOT NULL PRIMARY KEY, jti VARCHAR(120))",
        &format!(
            "INSERT INTO users (username, password) VALUES ('admin', '{HASH}'), ('ann', '{HASH}'), ('no hash', 'x')"
        ),
    ] {
        old.execute_unprepared(statement).await.unwrap();
    }
    old.close().await.unwrap();

    let operator = admin_ops(&config).await;
    let report = operator.import(&path).await.unwrap();
    assert_eq!(
        (report.added.as_slice(), report.present.as_slice()),
        (&["ann".to_owned()][..], &["admin".to_owned()][..])
    );
    assert_eq!(report.rejected.len(), 1, "{:?}", report.rejected);

    assert_eq!(hash_of(&config.database, "ann").await, HASH);
    assert_eq!(service.login("ann", "nimda").await.unwrap_err().reason(), Reason::BadCredentials);
    assert_eq!(hash_of(&config.database, "ann").await, HASH);
    assert!(service.login("ann", "admin").await.is_ok());
    let upgraded = hash_of(&config.database, "ann").await;
    assert!(upgraded.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{upgraded}");
    assert!(service.login("ann", "admin").await.is_ok());
    assert!(service.login("admin", PASSWORD).await.is_ok(), "an existing user is not changed");

    let again = operator.import(&path).await.unwrap();
    assert_eq!(
        again,
        ImportReport { added: vec![], present: vec!["admin".to_owned(), "ann".to_owned()], ..report }
    );
    assert_eq!(hash_of(&config.database, "ann").await, upgraded);
    operator.close().await;
    service.stop().await;
}

#[tokio::test]
async fn login_replaces_hash_of_another_cost() {
    let (_folder, mut config) = folder();
    Service::start(&config).await.stop().await;
    config.cost = muse_auth::Cost::new(20 * 1024, 3).unwrap();
    let service = Service::start(&config).await;
    assert!(hash_of(&config.database, "admin").await.contains("$m=19456,t=2,p=1$"));
    assert!(service.login("admin", PASSWORD).await.is_ok());
    assert!(hash_of(&config.database, "admin").await.contains("$m=20480,t=3,p=1$"));
    assert!(service.login("admin", PASSWORD).await.is_ok());
    service.stop().await;
}
