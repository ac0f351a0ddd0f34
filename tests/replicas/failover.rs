//! Embedders behind a gateway are killed, stopped, started and frozen.

use std::time::{Duration, Instant};

use muse_tests::{TIMEOUT, channel, login, program::Program};

use crate::{FREE, load::Load, serial};

/// The first embedder's share of the CPU time of both between two readings.
fn share(before: (Duration, Duration), after: (Duration, Duration)) -> f64 {
    let (first, second) = ((after.0 - before.0).as_secs_f64(), (after.1 - before.1).as_secs_f64());
    first / (first + second)
}

/// Waits until an embedder gets calls again.
async fn until_working(embedder: &Program, load: &Load) {
    let (before, end) = (embedder.cpu_time(), Instant::now() + TIMEOUT);
    while embedder.cpu_time() < before + Duration::from_millis(200) {
        assert!(Instant::now() < end, "the embedder gets no calls");
        load.wait_for_answers(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_one_of_two_embedders_serves() {
    let _guard = serial().await;
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    let (first, second) =
        tokio::join!(Program::embedder(FREE, auth.address), Program::embedder(FREE, auth.address));
    let addresses = [first.address, second.address];
    let gateway = Program::gateway(FREE, auth.address, &addresses, &[]).await;
    tokio::join!(first.ready(), second.ready(), gateway.ready());
    let token = login(channel(gateway.address)).await.access_token;
    let load = Load::start(&[gateway.address], &token, 8);

    until_working(&first, &load).await;
    until_working(&second, &load).await;
    let before = (first.cpu_time(), second.cpu_time());
    load.wait_for_answers(400).await;
    let even = share(before, (first.cpu_time(), second.cpu_time()));
    println!("the first of two does {:.0} % of the work", even * 100.0);
    // Calls are balanced, not CPU time, which other programs of the machine affect, too: the share is only roughly a half.
    // gateway/tests/gateway/balancer.rs tests which embedder gets a call.
    assert!((0.2..0.8).contains(&even), "{even}");

    // Killed during calls, and restarted on the same address.
    second.signal("-KILL");
    second.ended().await;
    load.wait_for_answers(200).await;
    let second = Program::embedder(addresses[1], auth.address).await;
    second.ready().await;
    until_working(&second, &load).await;

    // Stopped gracefully.
    first.stop().await;
    load.wait_for_answers(200).await;
    let first = Program::embedder(addresses[0], auth.address).await;
    first.ready().await;
    until_working(&first, &load).await;

    // Frozen: it accepts connections and does not respond. The gateway retries its calls after the
    // keepalive timeout.
    second.signal("-STOP");
    let before = second.cpu_time();
    load.wait_for_answers(200).await;
    assert_eq!(second.cpu_time(), before);
    load.pause(Duration::from_millis(50));
    tokio::time::sleep(Duration::from_secs(9)).await;
    load.pause(Duration::ZERO);
    second.signal("-CONT");
    until_working(&second, &load).await;
    load.stop().await;

    // Stop everything.
    first.stop().await;
    second.stop().await;
    gateway.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedder_is_discovered_by_host_name() {
    let _guard = serial().await;
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    // `localhost` may resolve to two addresses, one of which nobody listens on.
    let embedder = Program::embedder(FREE, auth.address).await;
    let (url, name) =
        (format!("http://{}", auth.address), format!("http://localhost:{}", embedder.address.port()));
    let environment = [("GATEWAY_LISTEN", "127.0.0.1:0"), ("AUTH_URL", &url), ("EMBEDDER_URL", &name)];
    let gateway = Program::start("muse-gateway", &environment).await;
    gateway.ready().await;
    let token = login(channel(gateway.address)).await.access_token;
    let load = Load::start(&[gateway.address], &token, 2);
    load.wait_for_answers(50).await;
    load.stop().await;
    gateway.stop().await;
}
