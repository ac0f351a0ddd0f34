//! Rotation of refresh tokens.

use std::time::Duration;

use muse_auth::{Config, RefreshRotation};
use muse_proto::v1::{RefreshTokenRequest, RefreshTokenResponse};
use tokio_util::sync::CancellationToken;

use crate::harness::{Service, eventually, folder, revoked, verifier, with_token};

fn enable_rotation(config: &mut Config, grace: u64) {
    config.refresh_rotation = Some(RefreshRotation { grace: Duration::from_secs(grace) });
}

async fn exchange(service: &Service, token: &str) -> Option<RefreshTokenResponse> {
    let answer = service.auth().refresh_token(with_token(RefreshTokenRequest {}, token)).await;
    answer.ok().map(tonic::Response::into_inner)
}

#[tokio::test]
async fn refresh_without_rotation_returns_no_refresh_token() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    for _ in 0..3 {
        let answer = exchange(&service, &refresh).await.unwrap();
        assert_eq!((answer.refresh_token.as_str(), answer.refresh_token_expires_in), ("", 0));
    }
    service.stop().await;
}

#[tokio::test]
async fn ended_refresh_token_is_valid_in_the_grace_period() {
    let (_folder, mut config) = folder();
    enable_rotation(&mut config, 3600);
    let service = Service::start(&config).await;
    let (_, first) = service.tokens().await;
    let lost = exchange(&service, &first).await.unwrap();
    let again = exchange(&service, &first).await.unwrap();
    assert_ne!(lost.refresh_token, again.refresh_token);
    assert_eq!(again.refresh_token_expires_in, 30 * 24 * 3600);
    let further = exchange(&service, &again.refresh_token).await.unwrap();
    assert!(exchange(&service, &further.refresh_token).await.is_some());
    service.stop().await;
}

#[tokio::test]
async fn reuse_of_an_ended_refresh_token_revokes_its_family() {
    let (_folder, mut config) = folder();
    enable_rotation(&mut config, 0);
    let service = Service::start(&config).await;
    let (verifier, shutdown) = (verifier(), CancellationToken::new());
    let following = verifier.follow(service.channel.clone(), shutdown.clone());
    verifier.wait_until_synced().await;

    let (access, stolen) = service.tokens().await;
    let (other_access, other_refresh) = service.tokens().await;
    let thief = exchange(&service, &stolen).await.unwrap();
    let mut owner = None;
    eventually("the grace is over", async || {
        owner = exchange(&service, &stolen).await;
        owner.is_none()
    })
    .await;

    assert_eq!(service.refresh(&thief.refresh_token).await, Err(revoked()));
    for token in [&access, &thief.access_token] {
        eventually("the family has ended", async || verifier.verify(token, None) == Err(revoked())).await;
    }
    assert!(verifier.verify(&other_access, None).is_ok(), "another login is another family");
    assert!(service.refresh(&other_refresh).await.is_ok());
    shutdown.cancel();
    following.await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn logout_with_a_refresh_token_revokes_its_family() {
    let (_folder, mut config) = folder();
    enable_rotation(&mut config, 3600);
    let service = Service::start(&config).await;
    let (_, first) = service.tokens().await;
    let second = exchange(&service, &first).await.unwrap();
    assert_eq!(service.revoke(&second.refresh_token).await, Ok(()));
    for token in [&first, &second.refresh_token] {
        assert_eq!(service.refresh(token).await, Err(revoked()));
    }
    service.stop().await;
}
