//! Services that are killed while usage is counted.

use std::time::{Duration, Instant};

use muse_tests::{channel, login, program::Program};

use crate::{embed, embedder, stored_usage, until_stored};

const FREE: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// The interval of reports, as documented.
const INTERVAL: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn killed_embedder_loses_at_most_one_interval() {
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    let program = Program::embedder(FREE, auth.address).await;
    program.ready().await;
    let admin = login(channel(auth.address)).await.access_token;
    let mut client = embedder(program.address);
    let mut answered = Vec::new();
    let began = Instant::now();
    // Until shortly before the fourth report.
    while began.elapsed() < INTERVAL * 7 / 2 {
        embed(&mut client, &admin).await.unwrap();
        answered.push(Instant::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.signal("-KILL");
    let killed = Instant::now();
    program.ended().await;
    let stored = stored_usage(auth.address, &admin, "admin", "").await.requests as usize;
    // A report takes some milliseconds, on a busy machine longer.
    let older = answered.iter().filter(|at| killed - **at > INTERVAL * 7 / 4).count();
    println!("{stored} of {} calls are counted, {older} were older than an interval", answered.len());
    assert!(older > 0 && (older..=answered.len()).contains(&stored), "{older} {stored}");
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_auth_loses_no_usage_and_counts_none_twice() {
    let data = tempfile::tempdir().unwrap();
    let mut auth = Program::auth(FREE, data.path()).await;
    let address = auth.address;
    let program = Program::embedder(FREE, address).await;
    program.ready().await;
    let admin = login(channel(address)).await.access_token;
    let mut client = embedder(program.address);
    let (mut requests, mut tokens) = (0, 0);
    for round in 0..4_u64 {
        // Killed at another time of the reports' interval in each round.
        let began = Instant::now();
        while began.elapsed() < INTERVAL + Duration::from_millis(500 * round) {
            tokens += embed(&mut client, &admin).await.unwrap();
            requests += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let acknowledged = stored_usage(address, &admin, "admin", "").await.requests;
        auth.signal("-KILL");
        auth.ended().await;
        // Its tokens are still accepted.
        tokens += embed(&mut client, &admin).await.unwrap();
        requests += 1;
        auth = Program::auth(address, data.path()).await;
        let stored = stored_usage(address, &admin, "admin", "").await.requests;
        assert!(stored >= acknowledged, "{stored} of {acknowledged} after the restart");
    }
    let stored = until_stored(address, &admin, "admin", |row| row.requests >= requests).await;
    tokio::time::sleep(INTERVAL * 2).await;
    assert_eq!(stored, stored_usage(address, &admin, "admin", "").await);
    assert_eq!(
        (stored.requests, stored.sentences, stored.tokens, stored.refused),
        (requests, requests, tokens, 0)
    );
    program.stop().await;
    auth.stop().await;
}
