//! What a token is good for.

use std::time::Duration;

use muse_proto::{
    Error, Reason,
    v1::{RefreshTokenRequest, RevokeTokenRequest},
};
use muse_verifier::{TokenKind, Verifier};

use crate::harness::{Service, error, eventually, folder, maintenance, revoked};

#[tokio::test]
async fn a_refresh_token_gives_access_tokens() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    let first = service.refresh(&refresh).await.unwrap();
    let second = service.refresh(&refresh).await.unwrap();
    assert_ne!(first, second);

    let keys = service.auth().get_jwks(muse_proto::v1::GetJwksRequest {}).await.unwrap().into_inner().keys;
    let claims = Verifier::with_keys(&keys).verify(&first, Some(TokenKind::Access)).unwrap();
    assert_eq!((claims.sub.as_str(), claims.fresh), ("admin", false));
    service.stop().await;
}

#[tokio::test]
async fn an_access_token_does_not() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, _) = service.tokens().await;
    let expected = error(Reason::TokenKind, "Only refresh tokens are allowed");
    assert_eq!(service.refresh(&access).await, Err(expected));
    service.stop().await;
}

#[tokio::test]
async fn each_token_of_a_pair_is_revoked_by_itself() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;

    let (access, refresh) = service.tokens().await;
    assert_eq!(service.revoke(&access).await, Ok(()));
    assert_eq!(service.revoke(&access).await, Err(revoked()));
    assert!(service.refresh(&refresh).await.is_ok());

    let (access, refresh) = service.tokens().await;
    assert_eq!(service.revoke(&refresh).await, Ok(()));
    assert_eq!(service.refresh(&refresh).await, Err(revoked()));
    assert_eq!(service.revoke(&refresh).await, Err(revoked()));
    assert_eq!(service.revoke(&access).await, Ok(()));
    service.stop().await;
}

#[tokio::test]
async fn of_many_who_revoke_a_token_one_succeeds() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, _) = service.tokens().await;
    let outcomes = futures::future::join_all((0..20).map(|_| service.revoke(&access))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|refused| refused == revoked()));
    service.stop().await;
}

#[tokio::test]
async fn a_call_without_a_token_is_refused() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let missing = Err(error(Reason::TokenMissing, "Missing Authorization Header"));
    let refreshed = service.auth().refresh_token(RefreshTokenRequest {}).await;
    assert_eq!(refreshed.map(drop).map_err(|status| Error::from(&status)), missing);
    let revoked = service.auth().revoke_token(RevokeTokenRequest {}).await;
    assert_eq!(revoked.map(drop).map_err(|status| Error::from(&status)), missing);
    service.stop().await;
}

#[tokio::test]
async fn a_token_expires() {
    let (_folder, mut config) = folder();
    config.access_token_lifetime = Duration::from_secs(1);
    config.refresh_token_lifetime = Duration::from_secs(1);
    let service = Service::start(&config).await;
    let (access, refresh) = service.tokens().await;
    let expired = error(Reason::TokenExpired, "Token has expired");
    eventually("the token has expired", async || service.refresh(&refresh).await == Err(expired.clone()))
        .await;
    // Expired comes before the kind, and before revoked.
    assert_eq!(service.refresh(&access).await, Err(expired.clone()));
    assert_eq!(service.revoke(&access).await, Err(expired));
    service.stop().await;
}

#[tokio::test]
async fn a_user_who_was_removed_gets_no_new_token() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    let maintenance = maintenance(&config).await;
    maintenance.users().unwrap().remove("admin").await.unwrap();
    assert_eq!(service.refresh(&refresh).await, Err(revoked()));
    maintenance.close().await;
    service.stop().await;
}
