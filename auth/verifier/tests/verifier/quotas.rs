//! Quotas in a verifier: how they arrive.

use std::time::{Duration, Instant};

use muse_proto::v1::{QuotaState, WatchRevocationsResponse};
use muse_verifier::{
    Principal, QuotaStatus,
    api_keys::{KeyId, VerifiedKey},
};

use crate::{
    follow::{Followed, LONG, message},
    signing::{KID, jwk, key, now},
};

fn quotas(used: &[(&str, u64)]) -> WatchRevocationsResponse {
    let state = |&(username, used): &(&str, u64)| QuotaState {
        username: username.to_owned(),
        limit: 10,
        used,
        resets_at: now() + 60,
        ..QuotaState::default()
    };
    let quotas = used.iter().map(state).collect();
    WatchRevocationsResponse { keys: vec![jwk(&key(), KID)], quotas, ..message(1) }
}

fn quota(followed: &Followed, owner: &str) -> Option<QuotaStatus> {
    let key = VerifiedKey { id: KeyId::new(1), owner: owner.into(), bulk: false };
    followed.verifier.quota(&Principal::Key(key))
}

async fn until(followed: &Followed, owner: &str, remaining: Option<u64>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while quota(followed, owner).map(|quota| quota.remaining) != remaining {
        assert!(Instant::now() < deadline, "{:?}", quota(followed, owner));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn quotas_arrive_as_a_snapshot_and_then_as_changes() {
    let mut followed = Followed::start(LONG).await;
    let watch = followed.call().await;
    watch.send(WatchRevocationsResponse { more: true, ..quotas(&[("ann", 1)]) });
    watch.send(quotas(&[("bob", 2), ("dan", 2)]));
    until(&followed, "ann", Some(9)).await;
    until(&followed, "bob", Some(8)).await;
    watch.send(quotas(&[("ann", 5)]));
    until(&followed, "ann", Some(5)).await;
    let removed = QuotaState { username: "dan".to_owned(), ..QuotaState::default() };
    watch.send(WatchRevocationsResponse { quotas: vec![removed], ..message(1) });
    until(&followed, "dan", None).await;

    // A new stream: its quotas replace the others when all of them have arrived.
    drop(watch);
    let watch = followed.call().await;
    watch.send(WatchRevocationsResponse { more: true, ..quotas(&[("ann", 10)]) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(quota(&followed, "ann").map(|quota| quota.remaining), Some(5));
    watch.send(quotas(&[("carol", 3)]));
    until(&followed, "ann", Some(0)).await;
    until(&followed, "carol", Some(7)).await;
    assert_eq!(quota(&followed, "bob"), None);

    // An older auth service has none.
    drop(watch);
    followed.call().await.send(quotas(&[]));
    until(&followed, "ann", None).await;
    assert!(!followed.verifier.has_quotas());
}
