//! Refresh, revocation and expiry of tokens.

use std::time::Duration;

use muse_proto::{
    Error, Reason,
    v1::{RefreshTokenRequest, RevokeTokenRequest},
};
use muse_verifier::{TokenKind, Verifier};

use crate::harness::{Service, admin_ops, error, eventually, folder, revoked};

#[tokio::test]
async fn refresh_token_returns_access_tokens() {
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
async fn access_token_cannot_be_used_to_refresh() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, _) = service.tokens().await;
    let expected = error(Reason::TokenKind, "Only refresh tokens are allowed");
    assert_eq!(service.refresh(&access).await, Err(expected));
    service.stop().await;
}

#[tokio::test]
async fn tokens_of_a_pair_are_revoked_separately() {
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
async fn one_of_many_simultaneous_revocations_succeeds() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, _) = service.tokens().await;
    let outcomes = futures::future::join_all((0..20).map(|_| service.revoke(&access))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|rejected| rejected == revoked()));
    service.stop().await;
}

#[tokio::test]
async fn call_without_a_token_is_rejected() {
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
async fn expired_token_is_rejected() {
    let (_folder, mut config) = folder();
    config.access_token_lifetime = Duration::from_secs(1);
    config.refresh_token_lifetime = Duration::from_secs(1);
    let service = Service::start(&config).await;
    let (access, refresh) = service.tokens().await;
    let expired = error(Reason::TokenExpired, "Token has expired");
    eventually("the token has expired", async || service.refresh(&refresh).await == Err(expired.clone()))
        .await;
    // The expiry is checked before the kind and the revocation.
    assert_eq!(service.refresh(&access).await, Err(expired.clone()));
    assert_eq!(service.revoke(&access).await, Err(expired));
    service.stop().await;
}

#[tokio::test]
async fn removed_user_gets_no_new_token() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    let operations = admin_ops(&config).await;
    operations.users().unwrap().remove("admin").await.unwrap();
    assert_eq!(service.refresh(&refresh).await, Err(revoked()));
    operations.close().await;
    service.stop().await;
}
