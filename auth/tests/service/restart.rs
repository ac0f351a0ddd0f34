//! Restarts of the service.

use secrecy::SecretString;

use crate::harness::{PASSWORD, Service, folder, revoked};

#[tokio::test]
async fn users_revocations_and_keys_survive_a_restart() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, refresh) = service.tokens().await;
    service.revoke(&access).await.unwrap();
    service.stop().await;

    let service = Service::start(&config).await;
    assert_eq!(service.revoke(&access).await, Err(revoked()));
    assert!(service.refresh(&refresh).await.is_ok());
    assert!(service.login("admin", PASSWORD).await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn derived_key_does_not_depend_on_the_database() {
    let (_folder, mut config) = folder();
    let (_other_folder, mut other_config) = folder();
    config.secret = Some(SecretString::from("the secret of both"));
    other_config.secret = config.secret.clone();
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    service.stop().await;

    let service = Service::start(&other_config).await;
    assert!(service.refresh(&refresh).await.is_ok());
    service.stop().await;
}
