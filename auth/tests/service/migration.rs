//! A database of an older version is updated and works.

use std::fs;

use muse_auth::{AdminOps, Config, Database, NewApiKey, Quota, Role};
use muse_proto::{
    Reason,
    v1::{ListUsersRequest, WatchRevocationsRequest, revocation::What},
};
use secrecy::ExposeSecret;

use crate::harness::{Service, folder, with_token};

const PASSWORD_OF_FIXTURE: &str = "a long password";

/// `database_e1c7bb0.sql` in a new file.
async fn restore(config: &Config) {
    use sea_orm::{ConnectionTrait, Database as Connection};
    let Database::Sqlite(path) = &config.database else { panic!("not SQLite") };
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let database = Connection::connect(url).await.unwrap();
    database.execute_unprepared(include_str!("database_e1c7bb0.sql")).await.unwrap();
    database.close().await.unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn database_of_e1c7bb0_is_updated() {
    let (_folder, config) = folder();
    restore(&config).await;
    let service = Service::start(&config).await;
    let admin = service.login("maria", PASSWORD_OF_FIXTURE).await.unwrap().access_token;
    let users = service.users().list_users(with_token(ListUsersRequest::default(), &admin)).await.unwrap();
    let users = users.into_inner().users;
    let names: Vec<_> = users.iter().map(|user| (user.username.as_str(), user.disabled)).collect();
    assert_eq!(names, [("joe", true), ("maria", false)]);
    let disabled = service.login("joe", PASSWORD_OF_FIXTURE).await.unwrap_err();
    assert_eq!(disabled.reason(), Reason::BadCredentials);

    let mut stream = service
        .revocations()
        .watch_revocations(WatchRevocationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let message = stream.message().await.unwrap().unwrap();
    assert_eq!(message.log, "c8652c50-f7d5-4c79-8faf-d5847989c0d5");
    assert!(message.keys.iter().any(|key| key.kid.starts_with("DDqHLLDX-")));
    assert!(matches!(&message.revocations[0].what, Some(What::User(user)) if user.username == "joe"));
    assert_eq!((message.key_cursor, message.api_keys.len()), (1, 0));

    let operator = AdminOps::open_existing(config.clone()).await.unwrap();
    let new = NewApiKey { name: "a", owner: "maria", expires_in: 0, bulk: false, quota: Quota::NONE };
    let (key, secret) = operator.api_keys().create(new).await.unwrap();
    assert!(secret.expose_secret().starts_with(&format!("muse_{}_", key.id)));
    loop {
        let message = stream.message().await.unwrap().unwrap();
        if let [created] = &*message.api_keys {
            assert_eq!((created.id, message.key_cursor), (key.id.number(), 2));
            break;
        }
    }
    assert_eq!(operator.users().unwrap().list().await.unwrap()[1].role, Role::Admin);
    operator.close().await;
    service.stop().await;
}
