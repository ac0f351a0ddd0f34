//! Rotation of signing keys.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use muse_proto::{Reason, v1::GetJwksRequest};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::harness::{Service, admin_ops, eventually, folder, verifier};

async fn published(service: &Service) -> Vec<String> {
    let keys = service.auth().get_jwks(GetJwksRequest {}).await.unwrap().into_inner().keys;
    keys.into_iter().map(|key| key.kid).collect()
}

/// Rotates the key while tokens are issued and verified: no verification fails, and the new key
/// signs in the end.
async fn rotates(secret: Option<&str>) {
    let (_folder, mut config) = folder();
    config.secret = secret.map(SecretString::from);
    let service = Service::start(&config).await;
    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    let following = verifier.follow(service.channel.clone(), shutdown.clone());
    verifier.wait_until_synced().await;
    let (_, refresh) = service.tokens().await;
    let old = published(&service).await;

    let operator = admin_ops(&config).await;
    let rotated = operator.rotate_key().await.unwrap();
    assert!(!rotated.signs, "it is published first");
    let ended = Arc::new(AtomicBool::new(false));
    let checked = async {
        let mut checks = 0;
        while !ended.load(Ordering::Relaxed) {
            let access = service.refresh(&refresh).await.unwrap();
            verifier.verify(&access, None).unwrap();
            checks += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        checks
    };
    let signs = async {
        eventually("the new key signs", async || {
            operator.keys().await.unwrap().iter().any(|key| key.kid == rotated.kid && key.signs)
        })
        .await;
        ended.store(true, Ordering::Relaxed);
    };
    let (checks, ()) = tokio::join!(checked, signs);
    assert!(checks > 100, "{checks}");
    assert_eq!(published(&service).await, [old[0].clone(), rotated.kid.clone()]);
    let access = service.refresh(&refresh).await.unwrap();
    assert!(verifier.verify(&access, None).is_ok());
    service.stop().await;

    // The keys survive a restart, and tokens of the old one remain valid.
    let service = Service::start(&config).await;
    assert!(service.refresh(&refresh).await.is_ok());

    // Until it is removed.
    assert!(operator.remove_key(&rotated.kid).await.is_err(), "it signs");
    assert!(operator.remove_key("another").await.is_err());
    operator.remove_key(&old[0]).await.unwrap();
    eventually("tokens of the old key have ended", async || {
        service.refresh(&refresh).await.is_err_and(|rejected| rejected.reason() == Reason::TokenInvalid)
    })
    .await;
    assert_eq!(published(&service).await, [rotated.kid]);
    shutdown.cancel();
    following.await.unwrap();
    operator.close().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_rotation_fails_no_request() {
    rotates(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn derived_key_rotation_fails_no_request() {
    rotates(Some("a secret of 16 bytes or more")).await;
}

#[tokio::test]
async fn key_rotation_with_another_secret_is_rejected() {
    let (_folder, mut config) = folder();
    config.secret = Some(SecretString::from("a secret of 16 bytes or more"));
    Service::start(&config).await.stop().await;
    for secret in [None, Some("another secret of 16 bytes")] {
        config.secret = secret.map(SecretString::from);
        let operator = admin_ops(&config).await;
        let rejected = operator.rotate_key().await.unwrap_err().to_string();
        assert!(rejected.contains("JWT_SECRET_KEY"), "{rejected}");
        operator.close().await;
    }
}
