//! Embedders that are killed, stopped, started and frozen behind a gateway.

use std::time::{Duration, Instant};

use muse_tests::{PATIENCE, channel, login, program::Program};

use crate::{FREE, alone, load::Load};

/// The part of the work that the first one of two has done between two readings of their time on processors.
fn share(before: (Duration, Duration), after: (Duration, Duration)) -> f64 {
    let (first, second) = ((after.0 - before.0).as_secs_f64(), (after.1 - before.1).as_secs_f64());
    first / (first + second)
}

/// Waits until an embedder is at work again.
async fn works(embedder: &Program, load: &Load) {
    let (before, end) = (embedder.cpu_time(), Instant::now() + PATIENCE);
    while embedder.cpu_time() < before + Duration::from_millis(200) {
        assert!(Instant::now() < end, "it gets nothing to do");
        load.goes_on(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_one_of_two_embedders_serves() {
    let _turn = alone().await;
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    let (first, second) =
        tokio::join!(Program::embedder(FREE, auth.address), Program::embedder(FREE, auth.address));
    let addresses = [first.address, second.address];
    let gateway = Program::gateway(FREE, auth.address, &addresses, &[]).await;
    tokio::join!(first.ready(), second.ready(), gateway.ready());
    let token = login(channel(gateway.address)).await.access_token;
    let load = Load::start(&[gateway.address], &token, 8);

    works(&first, &load).await;
    works(&second, &load).await;
    let before = (first.cpu_time(), second.cpu_time());
    load.goes_on(400).await;
    let even = share(before, (first.cpu_time(), second.cpu_time()));
    println!("the first of two does {:.0} % of the work", even * 100.0);
    assert!((0.35..0.65).contains(&even), "{even}");

    // Killed in the middle of its calls, and started again where it was.
    second.signal("-KILL");
    second.ended().await;
    load.goes_on(200).await;
    let second = Program::embedder(addresses[1], auth.address).await;
    second.ready().await;
    works(&second, &load).await;

    // Asked to end, which is not noticed either.
    first.stop().await;
    load.goes_on(200).await;
    let first = Program::embedder(addresses[0], auth.address).await;
    first.ready().await;
    works(&first, &load).await;

    // Frozen: it accepts and does not answer. Its calls go elsewhere when that is clear.
    second.signal("-STOP");
    let before = second.cpu_time();
    load.goes_on(200).await;
    assert_eq!(second.cpu_time(), before);
    tokio::time::sleep(Duration::from_secs(9)).await;
    second.signal("-CONT");
    works(&second, &load).await;
    load.stop().await;

    // Nobody is left, which is said at once.
    first.stop().await;
    second.stop().await;
    gateway.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedder_is_discovered_by_host_name() {
    let _turn = alone().await;
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    // `localhost` has an address, or two, of which one has nobody who listens.
    let embedder = Program::embedder(FREE, auth.address).await;
    let (url, name) =
        (format!("http://{}", auth.address), format!("http://localhost:{}", embedder.address.port()));
    let environment = [("GATEWAY_LISTEN", "127.0.0.1:0"), ("AUTH_URL", &url), ("EMBEDDER_URL", &name)];
    let gateway = Program::start("muse-gateway", &environment).await;
    gateway.ready().await;
    let token = login(channel(gateway.address)).await.access_token;
    let load = Load::start(&[gateway.address], &token, 2);
    load.goes_on(50).await;
    load.stop().await;
    gateway.stop().await;
}
