//! A gateway with several embedders that return configured responses.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use muse_gateway::{Resolver, SystemResolver};
use muse_proto::{Error, Reason, v1::EmbedStreamRequest};

use crate::{
    bearing,
    fake_embedder::{Behavior, Embedder, embed},
    harness::{Backend, Gateway, token},
};

struct Fleet {
    gateway: Gateway,
    embedders: [Embedder; 2],
}

impl Fleet {
    async fn start() -> Self {
        let embedders = [
            Embedder::start("127.0.0.1:0", 1.0, None).await,
            Embedder::start("127.0.0.1:0", 2.0, None).await,
        ];
        let urls = embedders.each_ref().map(|embedder| format!("http://{}", embedder.address)).join(",");
        let backend = Backend::start().await;
        let gateway = Gateway::start_before(&backend, &urls, Box::new(SystemResolver::default()), &[]).await;
        gateway.wait_until_ready().await;
        let fleet = Self { gateway, embedders };
        fleet.call_until(async || fleet.take_received().iter().all(|&count| count > 0)).await;
        fleet
    }

    /// Makes calls until a condition holds.
    async fn call_until(&self, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            for _ in 0..4 {
                let _ = embed(&self.gateway, None).await;
            }
            if holds().await {
                return;
            }
            assert!(Instant::now() < end, "timeout of the condition");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes the numbers of calls that the embedders received.
    fn take_received(&self) -> [usize; 2] {
        self.embedders.each_ref().map(|embedder| embedder.take_received().len())
    }
}

#[tokio::test]
async fn calls_go_to_the_least_loaded_embedder() {
    let fleet = Fleet::start().await;
    for _ in 0..10 {
        embed(&fleet.gateway, None).await.unwrap();
    }
    assert_eq!(fleet.take_received(), [5, 5]);
    let [first, second] = &fleet.embedders;
    first.respond_with(Behavior::Pending);
    let calls = stream::iter(0..20).map(|_| embed(&fleet.gateway, None)).buffer_unordered(4);
    let waits = async {
        while second.received() < 15 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.respond_with(Behavior::Vectors);
    };
    let (responses, ()) = tokio::join!(calls.collect::<Vec<_>>(), waits);
    assert!(responses.iter().all(Result::is_ok), "{responses:?}");
    assert!(first.take_received().len() <= 5);
}

#[tokio::test]
async fn unavailable_endpoint_is_retried_elsewhere_and_then_avoided() {
    let fleet = Fleet::start().await;
    let [first, second] = &fleet.embedders;
    first.respond_with_error(Reason::Unavailable, Duration::from_secs(1));
    let deadline = Duration::from_secs(5);
    for _ in 0..2 {
        assert_eq!(embed(&fleet.gateway, Some(deadline)).await, Ok(2.0));
    }
    assert_eq!(first.take_received().len(), 1);
    for received in second.take_received() {
        assert!(received.is_some_and(|left| left <= deadline), "{received:?}");
    }
    // It is healthy, so it gets calls again, and its share after a success.
    first.respond_with(Behavior::Vectors);
    fleet.call_until(async || !first.take_received().is_empty()).await;

    first.respond_with_error(Reason::Unavailable, Duration::from_secs(1));
    second.respond_with_error(Reason::Unavailable, Duration::from_secs(1));
    let rejected = embed(&fleet.gateway, None).await.unwrap_err();
    assert_eq!((rejected.reason(), rejected.message()), (Reason::Unavailable, "no"));
}

#[tokio::test]
async fn rejected_call_is_sent_to_one_other_embedder() {
    let fleet = Fleet::start().await;
    let [first, second] = &fleet.embedders;
    first.respond_with_error(Reason::Overloaded, Duration::from_millis(200));
    for _ in 0..4 {
        assert_eq!(embed(&fleet.gateway, None).await, Ok(2.0));
    }
    assert_eq!(fleet.take_received()[1], 4);

    second.respond_with_error(Reason::Overloaded, Duration::from_secs(5));
    for _ in 0..3 {
        let rejected = embed(&fleet.gateway, None).await.unwrap_err();
        assert_eq!((rejected.reason(), rejected.message()), (Reason::Overloaded, "no"));
        assert!(rejected.retry_after().is_some());
        assert_eq!(fleet.take_received(), [1, 1]);
    }
    // A rejection applies to one call; the next one is served.
    first.respond_with(Behavior::Vectors);
    second.respond_with(Behavior::Vectors);
    assert!(embed(&fleet.gateway, None).await.is_ok());
    fleet.take_received();

    for reason in [Reason::InvalidArgument, Reason::Internal, Reason::TooManyAttempts, Reason::QuotaExhausted]
    {
        tokio::time::sleep(Duration::from_millis(250)).await;
        for embedder in &fleet.embedders {
            embedder.respond_with_error(reason, Duration::from_secs(1));
        }
        assert_eq!(embed(&fleet.gateway, None).await.unwrap_err().reason(), reason);
        assert_eq!(fleet.take_received().iter().sum::<usize>(), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn stream_without_response_is_retried_elsewhere() {
    let fleet = Fleet::start().await;
    for embedder in &fleet.embedders {
        fleet.take_received();
        embedder.respond_with_error(Reason::Unavailable, Duration::from_secs(1));
        for _ in 0..2 {
            let items =
                ["a", "b"].map(|id| EmbedStreamRequest { id: id.to_owned(), sentence: id.to_owned() });
            let call = bearing(&token("access", "a", None), stream::iter(items));
            let responses = fleet.gateway.embedder().embed_stream(call).await.unwrap().into_inner();
            let ids: Vec<String> = responses.map(|response| response.unwrap().id).collect().await;
            assert_eq!(ids, ["a", "b"]);
        }
        assert_eq!(embedder.take_received().len(), 1);
        embedder.respond_with(Behavior::Vectors);
        fleet.call_until(async || fleet.take_received().iter().all(|&count| count > 0)).await;
    }
}

/// A resolver with the addresses of the test.
#[derive(Debug, Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Resolver for Names {
    fn resolve(&self, host: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        assert_eq!(host, "embedders.example");
        let found = self.0.lock().unwrap().clone();
        async move { Ok(found) }.boxed()
    }
}

#[tokio::test]
async fn changed_addresses_of_a_name_are_used() {
    let names = Names::default();
    let [first, second] =
        [Embedder::start("127.0.0.2:0", 1.0, None).await, Embedder::start("127.0.0.3:0", 2.0, None).await];
    names.0.lock().unwrap().push(first.address);
    let backend = Backend::start().await;
    let resolver = Box::new(names.clone());
    let gateway =
        Gateway::start_before(&backend, "http://embedders.example:1", resolver, &["--plaintext"]).await;
    gateway.wait_until_ready().await;
    assert_eq!(embed(&gateway, None).await, Ok(1.0));

    names.0.lock().unwrap().push(second.address);
    let end = Instant::now() + Duration::from_secs(10);
    while embed(&gateway, None).await != Ok(2.0) {
        assert!(Instant::now() < end, "the second embedder gets no call");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // The first embedder is removed from the name during a call.
    first.respond_with(Behavior::Pending);
    first.take_received();
    let pending_calls = async {
        let calls = [embed(&gateway, None), embed(&gateway, None)];
        futures::future::join_all(calls).await
    };
    let removal = async {
        while first.received() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        *names.0.lock().unwrap() = vec![second.address];
        tokio::time::sleep(Duration::from_secs(3)).await;
        first.respond_with(Behavior::Vectors);
    };
    let (responses, ()) = tokio::join!(pending_calls, removal);
    assert!(responses.contains(&Ok(1.0)) && responses.iter().all(Result::is_ok), "{responses:?}");
    for _ in 0..10 {
        assert_eq!(embed(&gateway, None).await, Ok(2.0));
    }
}

#[tokio::test]
async fn status_contains_each_embedder_that_responds() {
    let fleet = Fleet::start().await;
    let [first, second] = &fleet.embedders;
    let authorization = format!("Bearer {}", token("access", "x", None));
    let status = async || {
        let response = fleet.gateway.send("GET", "/api/status", &[("authorization", &authorization)]).await;
        assert_eq!(response.status, 200);
        let status = response.json();
        let versions = status["embedders"].as_array().unwrap().iter();
        let mut versions: Vec<_> =
            versions.map(|embedder| embedder["version"].as_str().unwrap().to_owned()).collect();
        versions.sort();
        (versions, status["embedders_known"].clone(), status["embedders_serving"].clone())
    };
    // Until the health checks of both have ended.
    fleet.call_until(async || status().await.2 == 2).await;
    assert_eq!(status().await, (vec!["1".to_owned(), "2".to_owned()], 2.into(), 2.into()));
    second.respond_with(Behavior::Error(Error::new(Reason::Internal, "a fault")));
    assert_eq!(status().await.0, [first.number.to_string()]);
    // One that is not ready in time is left out, too.
    second.respond_with(Behavior::Pending);
    assert_eq!(status().await.0, [first.number.to_string()]);
}
