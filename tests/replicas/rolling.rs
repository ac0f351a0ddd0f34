//! A rolling restart of all processes, one after the other.

use std::net::SocketAddr;

use muse_proto::v1::{LoginRequest, auth_service_client::AuthServiceClient};
use muse_tests::{channel, login, program::Program, until};

use crate::{FREE, load::Load, serial};

/// A gateway with a shutdown delay of one second.
async fn gateway(address: SocketAddr, auth: SocketAddr, embedders: &[SocketAddr]) -> Program {
    let gateway = Program::gateway(address, auth, embedders, &[("SHUTDOWN_DELAY", "1")]).await;
    gateway.ready().await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_of_each_service_loses_no_call() {
    let _guard = serial().await;
    let data = tempfile::tempdir().unwrap();
    let mut auth = Program::auth(FREE, data.path()).await;
    let mut embedders = Vec::new();
    for _ in 0..2 {
        let embedder = Program::embedder(FREE, auth.address).await;
        embedder.ready().await;
        embedders.push(embedder);
    }
    let addresses: Vec<SocketAddr> = embedders.iter().map(|embedder| embedder.address).collect();
    let mut gateways = Vec::new();
    for _ in 0..2 {
        gateways.push(gateway(FREE, auth.address, &addresses).await);
    }
    let fronts: Vec<SocketAddr> = gateways.iter().map(|gateway| gateway.address).collect();
    let token = login(channel(fronts[0])).await.access_token;
    let load = Load::start(&fronts, &token, 6);
    load.wait_for_answers(50).await;

    for address in &addresses {
        embedders.remove(0).stop().await;
        let embedder = Program::embedder(*address, auth.address).await;
        embedder.ready().await;
        embedders.push(embedder);
        load.wait_for_answers(50).await;
    }
    for address in &fronts {
        gateways.remove(0).stop().await;
        gateways.push(gateway(*address, auth.address, &addresses).await);
        load.wait_for_answers(50).await;
    }

    let address = auth.address;
    auth.stop().await;
    load.wait_for_answers(50).await;
    auth = Program::auth(address, data.path()).await;
    auth.ready().await;
    // Logins fail with UNAVAILABLE until the auth service is reachable.
    let request = LoginRequest { username: "admin".to_owned(), password: "admin".to_owned() };
    until(async || AuthServiceClient::new(channel(fronts[0])).login(request.clone()).await.ok()).await;
    load.wait_for_answers(50).await;
    load.stop().await;

    for program in gateways.into_iter().chain(embedders) {
        program.stop().await;
    }
    auth.stop().await;
}
