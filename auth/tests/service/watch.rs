//! The revocation stream.

use std::{collections::HashSet, time::Duration};

use muse_proto::v1::{WatchRevocationsRequest, WatchRevocationsResponse};
use tokio::time::timeout;
use tonic::Streaming;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Service, folder};

async fn watch(service: &Service, cursor: i64, log: &str) -> Streaming<WatchRevocationsResponse> {
    let request = WatchRevocationsRequest { cursor, log: log.to_owned(), key_cursor: 0 };
    service.revocations().watch_revocations(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchRevocationsResponse>) -> WatchRevocationsResponse {
    timeout(Duration::from_secs(10), stream.message()).await.expect("a message in time").unwrap().unwrap()
}

/// The next message that is not a heartbeat.
async fn next_revocations(stream: &mut Streaming<WatchRevocationsResponse>) -> WatchRevocationsResponse {
    loop {
        let message = next(stream).await;
        if !message.revocations.is_empty() {
            return message;
        }
    }
}

#[tokio::test]
async fn watch_sends_snapshot_then_changes_and_resumes() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;

    let mut stream = watch(&service, 0, "").await;
    let empty = next(&mut stream).await;
    assert_eq!((empty.revocations.len(), empty.cursor, empty.more), (0, 0, false));
    assert_eq!(empty.keys.len(), 1, "the keys come first");
    let log = empty.log.as_str();

    let (access, refresh) = service.tokens().await;
    service.revoke(&access).await.unwrap();
    let first = next_revocations(&mut stream).await;
    assert_eq!(first.revocations.len(), 1);
    service.revoke(&refresh).await.unwrap();
    let second = next_revocations(&mut stream).await;
    assert_eq!(second.revocations.len(), 1);
    assert!(second.cursor > first.cursor);

    let all = next(&mut watch(&service, 0, log).await).await;
    assert_eq!(all.revocations, [first.revocations.clone(), second.revocations.clone()].concat());
    assert_eq!(all.cursor, second.cursor);
    let resumed = next(&mut watch(&service, first.cursor, log).await).await;
    assert_eq!(resumed.revocations, second.revocations);
    let nothing_new = next(&mut watch(&service, second.cursor, log).await).await;
    assert_eq!((nothing_new.revocations.len(), nothing_new.cursor), (0, second.cursor));
    for (cursor, log) in [(1_000_000, log), (second.cursor, "another")] {
        let from_another_database = next(&mut watch(&service, cursor, log).await).await;
        assert_eq!(from_another_database, all);
    }

    // Open streams do not delay the shutdown.
    service.stop().await;
}

#[tokio::test]
async fn watchers_that_start_during_revocations_miss_none() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        let (access, refresh) = service.tokens().await;
        tokens.extend([access, refresh]);
    }
    let watcher = async |after: u64| {
        // Each watcher starts at another time.
        tokio::time::sleep(Duration::from_millis(after)).await;
        let mut stream = watch(&service, 0, "").await;
        let mut seen = HashSet::new();
        while seen.len() < 20 {
            seen.extend(
                next(&mut stream)
                    .await
                    .revocations
                    .into_iter()
                    .map(|revocation| format!("{:?}", revocation.what)),
            );
        }
    };
    let revoking = futures::future::join_all(tokens.iter().map(|token| service.revoke(token)));
    let watching = futures::future::join_all((0..8).map(|number| watcher(number * 2)));
    let (outcomes, _) = tokio::join!(revoking, watching);
    assert!(outcomes.iter().all(Result::is_ok));
    service.stop().await;
}

#[tokio::test]
async fn watch_sends_a_heartbeat_every_second() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let mut stream = watch(&service, 0, "").await;
    for _ in 0..3 {
        let message = timeout(Duration::from_secs(2), stream.message()).await;
        assert!(message.expect("a message in time").unwrap().is_some());
    }
    service.stop().await;
}

#[tokio::test]
async fn health_watches_do_not_delay_the_shutdown() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let mut streams = Vec::new();
    for name in
        ["", "muse.v1.AuthService", "muse.v1.KeyService", "muse.v1.RevocationService", "muse.v1.UserService"]
    {
        let mut health = HealthClient::new(service.channel.clone());
        let request = HealthCheckRequest { service: name.to_owned() };
        let mut stream = health.watch(request).await.unwrap().into_inner();
        let serving = stream.message().await.unwrap().unwrap().status();
        assert_eq!(serving.as_str_name(), "SERVING", "{name:?}");
        streams.push(stream);
    }
    service.stop().await;
}
