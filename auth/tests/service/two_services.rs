//! Two services that share a database.

use muse_proto::v1::RevokeUserTokensRequest;
use tokio_util::sync::CancellationToken;

use crate::harness::{PASSWORD, Service, admin_ops, eventually, folder, revoked, verifier, with_token};

#[tokio::test]
async fn revocation_applies_to_both_services_at_once() {
    let (_folder, config) = folder();
    let (one, other) = (Service::start(&config).await, Service::start(&config).await);
    for _ in 0..20 {
        let (access, refresh) = one.tokens().await;
        one.revoke(&access).await.unwrap();
        assert_eq!(other.revoke(&access).await, Err(revoked()));
        assert!(other.refresh(&refresh).await.is_ok());
        other.revoke(&refresh).await.unwrap();
        assert_eq!(one.refresh(&refresh).await, Err(revoked()));
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn verifier_of_one_service_gets_revocations_of_the_other() {
    let (_folder, config) = folder();
    let (one, other) = (Service::start(&config).await, Service::start(&config).await);
    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    let following = verifier.follow(one.channel.clone(), shutdown.clone());
    verifier.wait_until_synced().await;

    let (access, refresh) = other.tokens().await;
    assert!(verifier.verify(&access, None).is_ok(), "they sign with the same key");
    other.revoke(&access).await.unwrap();
    eventually("the token is rejected", async || verifier.verify(&access, None) == Err(revoked())).await;

    let (access, _) = other.tokens().await;
    let call = with_token(RevokeUserTokensRequest::default(), &access);
    other.auth().revoke_user_tokens(call).await.unwrap();
    eventually("all are rejected", async || verifier.verify(&refresh, None) == Err(revoked())).await;
    assert_eq!(one.refresh(&refresh).await, Err(revoked()));
    let (access, _) = one.tokens().await;
    assert!(verifier.verify(&access, None).is_ok(), "later tokens are valid");

    // The same for changes by the command line.
    let operator = admin_ops(&config).await;
    operator.users().unwrap().set_disabled("admin", true).await.unwrap();
    eventually("the user is out", async || verifier.verify(&access, None) == Err(revoked())).await;
    assert!(one.login("admin", PASSWORD).await.is_err());
    operator.close().await;
    shutdown.cancel();
    following.await.unwrap();
    one.stop().await;
    other.stop().await;
}
