//! A short form of `make drill`.

use std::time::Duration;

use muse_tests::isolation::{
    attack::{Combination, Target},
    calls::{Method, Protocol, Stage},
    canary::Canary,
    stack::{Settings, Stack},
};

use crate::alone;

/// Maximum time until cancelled calls have ended in all services.
const SETTLE: Duration = Duration::from_secs(20);

/// The number of calls of a combination: a burst where a shared connection would break first,
/// otherwise a few.
fn calls(combination: Combination) -> usize {
    let Combination { method, protocol, stage, connections, token } = combination;
    let burst = matches!(stage, Stage::Headers | Stage::Message)
        && matches!(method, Method::Embed | Method::Tokenize | Method::Login)
        && protocol == Protocol::Grpc
        && token == method.needs_token();
    match (burst, connections) {
        (true, 1) => 200,
        (true, _) => 128,
        (false, 1) => 8,
        // One call per connection would take 64 connections.
        (false, _) => 4,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_calls_of_all_methods_disturb_no_other_user() {
    let _guard = alone().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let mut target = Target::new(&stack).await;
    let canary = Canary::start(&stack).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = canary.take();
    assert!(idle.failed().is_empty(), "{:?}", idle.failed());
    assert!(idle.items > 0 && !idle.latencies.is_empty(), "the canary is running");
    let connections = stack.upstream_connections();
    // Allowance for the canary's calls.
    let in_flight: Vec<f64> = stack.in_flight().await.iter().map(|count| count + 2.0).collect();

    let mut made = 0;
    for combination in Method::ALL.into_iter().flat_map(Combination::of) {
        if combination.method == Method::RevokeToken && combination.token {
            target.renew().await;
        }
        let calls = calls(combination);
        let outcome = target.attack(combination, calls).await;
        assert!(outcome.calls > 0, "{combination:?}");
        made += outcome.calls;
        let noticed = canary.take();
        assert!(
            noticed.failed().is_empty(),
            "{combination:?}: {:?}\n{}",
            noticed.failed(),
            stack.gateway.log()
        );
        let lost = connections.difference(&stack.upstream_connections()).count();
        assert_eq!(
            lost,
            0,
            "{combination:?}: connections between services were closed\n{}",
            stack.gateway.log()
        );
    }
    assert!(made >= 2_000, "{made} calls were made");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let noticed = canary.take();
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());
    assert!(noticed.items > 0, "the open stream continues");
    let settled = stack.settle(&in_flight, SETTLE).await;
    assert_eq!(settled, Ok(()), "requests remain in flight; idle: {in_flight:?}");
    stack.assert_running();
    drop(canary);
    stack.stop().await;
}
