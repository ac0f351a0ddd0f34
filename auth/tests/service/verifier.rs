//! A verifier that follows a real service.

use muse_proto::Reason;
use muse_verifier::TokenKind;
use tokio_util::sync::CancellationToken;

use crate::harness::{Service, channel, error, eventually, folder, revoked, verifier};

#[tokio::test]
async fn verifier_receives_a_revocation() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (early, _) = service.tokens().await;
    service.revoke(&early).await.unwrap();
    let (access, _) = service.tokens().await;

    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    assert_eq!(verifier.verify(&access, None).unwrap_err().reason(), Reason::Unavailable);
    let following = verifier.follow(service.channel.clone(), shutdown.clone());
    verifier.wait_until_synced().await;
    assert!(verifier.verify(&access, Some(TokenKind::Access)).is_ok());
    assert_eq!(verifier.verify(&early, None), Err(revoked()));

    service.revoke(&access).await.unwrap();
    eventually("the token is rejected", async || verifier.verify(&access, None) == Err(revoked())).await;
    shutdown.cancel();
    following.await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn verifier_misses_no_revocation_during_a_restart() {
    let (_folder, config) = folder();
    let mut service = Service::start(&config).await;
    let address = service.address;
    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    let following = verifier.follow(channel(address), shutdown.clone());
    verifier.wait_until_synced().await;

    for _ in 0..3 {
        let (access, refresh) = service.tokens().await;
        service.stop().await;
        assert!(verifier.verify(&access, None).is_ok(), "tokens remain valid while disconnected");

        service = Service::start_at(&config, address).await;
        // Usually the verifier has not reconnected yet.
        service.revoke(&access).await.unwrap();
        eventually("the token is rejected", async || verifier.verify(&access, None) == Err(revoked())).await;
        assert!(verifier.verify(&refresh, None).is_ok());
    }
    shutdown.cancel();
    following.await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn verifier_may_start_before_the_service() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let address = service.address;
    service.stop().await;

    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    let following = verifier.follow(channel(address), shutdown.clone());
    let service = Service::start_at(&config, address).await;
    verifier.wait_until_synced().await;
    assert!(verifier.verify(&service.tokens().await.0, None).is_ok());
    shutdown.cancel();
    following.await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn verifier_receives_a_new_key_at_the_reconnect() {
    let (_folder, config) = folder();
    let (_other_folder, other_config) = folder();
    let service = Service::start(&config).await;
    let address = service.address;
    let (old, _) = service.tokens().await;
    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    let following = verifier.follow(channel(address), shutdown.clone());
    verifier.wait_until_synced().await;
    service.stop().await;

    let service = Service::start_at(&other_config, address).await;
    let (new, _) = service.tokens().await;
    eventually("the new key is known", async || verifier.verify(&new, None).is_ok()).await;
    let expected = error(Reason::TokenInvalid, "Signature verification failed");
    assert_eq!(verifier.verify(&old, None), Err(expected));
    shutdown.cancel();
    following.await.unwrap();
    service.stop().await;
}
