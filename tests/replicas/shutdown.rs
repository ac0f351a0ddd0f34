//! Graceful shutdown of each program.

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use muse_proto::v1::{
    EmbedRequest, EmbedResponse, TokenizeRequest, embedder_service_client::EmbedderServiceClient,
};
use muse_tests::{TIMEOUT, bearing, channel, http_client::HttpClient, login, procfs, program::Program};
use tokio::{net::TcpStream, time::timeout};
use tonic::{Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{FREE, serial};

/// A call that takes several seconds on one core.
async fn long_call(gateway: SocketAddr, token: &str) -> Result<Response<EmbedResponse>, Status> {
    // More than a hundred thousand tokens: seconds also on a fast machine.
    let sentence = |number| format!("a sentence with the number {number}, ").repeat(8);
    let sentences = (0..2048).map(sentence).collect();
    let request = EmbedRequest { sentences, ..EmbedRequest::default() };
    let mut client = EmbedderServiceClient::new(channel(gateway)).max_decoding_message_size(64 << 20);
    client.embed(bearing(token, request)).await
}

/// Waits until the embedder, a process, has computed for 100 ms: then a call is in flight.
async fn wait_until_computing(embedder: u32) {
    let before = procfs::cpu_time(embedder);
    let computed = || procfs::cpu_time(embedder).saturating_sub(before);
    let computing = async {
        while computed() < Duration::from_millis(100) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, computing).await.expect("the call arrives");
}

async fn health(address: SocketAddr) -> ServingStatus {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel(address)).check(request).await.expect("it answers");
    answer.into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_reports_not_ready_serves_and_finishes_calls() {
    let _guard = serial().await;
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    let url = format!("http://{}", auth.address);
    // On a busy machine the call in flight takes longer than the default grace period.
    let [delay, grace] = [("SHUTDOWN_DELAY", "1"), ("SHUTDOWN_GRACE", "120")];
    let model = muse_tests::model_dir();
    let model = model.to_str().unwrap();
    let own =
        [("EMBEDDER_LISTEN", "127.0.0.1:0"), ("AUTH_URL", &url), ("MUSE_MODEL_DIR", model), delay, grace];
    let embedder = Program::start("muse-embedder", &own).await;
    embedder.ready().await;
    let gateway = Program::gateway(FREE, auth.address, &[embedder.address], &[delay, grace]).await;
    gateway.ready().await;
    let token = login(channel(gateway.address)).await.access_token;

    let computing = embedder.id();
    for (program, speaks_http_1) in [(gateway, true), (embedder, false)] {
        let address = program.address;
        let in_flight = tokio::spawn({
            let token = token.clone();
            async move { long_call(address, &token).await }
        });
        // Only calls in flight are guaranteed to finish.
        wait_until_computing(computing).await;
        assert_eq!(health(address).await, ServingStatus::Serving);
        let rest = HttpClient::new(address);
        if speaks_http_1 {
            assert_eq!(rest.get("/tokenize?sentence=a", &token).await.header("connection"), "");
        }
        let signalled = Instant::now();
        program.signal("-TERM");
        while health(address).await == ServingStatus::Serving {}
        if speaks_http_1 {
            let answer = rest.get("/tokenize?sentence=a", &token).await;
            assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
        }
        // New connections are still served.
        let request = TokenizeRequest { sentences: vec!["a".to_owned()] };
        EmbedderServiceClient::new(channel(address)).tokenize(bearing(&token, request)).await.unwrap();
        let status = program.ended().await;
        assert!(status.success(), "{status}");
        assert!(signalled.elapsed() >= Duration::from_secs(1), "{:?}", signalled.elapsed());
        assert_eq!(in_flight.await.unwrap().unwrap().into_inner().embeddings.len(), 2048);
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_the_grace_or_a_second_signal_ends_the_process() {
    let _guard = serial().await;
    let data = tempfile::tempdir().unwrap();
    let auth = Program::auth(FREE, data.path()).await;
    let embedder = Program::embedder(FREE, auth.address).await;
    embedder.ready().await;
    let start = async |grace| {
        let gateway =
            Program::gateway(FREE, auth.address, &[embedder.address], &[("SHUTDOWN_GRACE", grace)]).await;
        gateway.ready().await;
        gateway
    };
    let gateway = start("1").await;
    let token = login(channel(gateway.address)).await.access_token;
    let call = |gateway: SocketAddr| {
        let token = token.clone();
        tokio::spawn(async move { long_call(gateway, &token).await })
    };

    let aborted = call(gateway.address);
    wait_until_computing(embedder.id()).await;
    embedder.signal("-STOP");
    let signalled = Instant::now();
    gateway.stop().await;
    assert!(signalled.elapsed() >= Duration::from_secs(1), "{:?}", signalled.elapsed());
    assert!(aborted.await.unwrap().is_err());
    embedder.signal("-CONT");

    let gateway = start("60").await;
    let computing = embedder.id();
    for program in [gateway, embedder] {
        let aborted = call(program.address);
        wait_until_computing(computing).await;
        let signalled = Instant::now();
        program.signal("-TERM");
        tokio::time::sleep(Duration::from_millis(100)).await;
        program.signal("-TERM");
        let status = program.ended().await;
        assert_eq!((status.code(), status.signal()), (None, Some(9)));
        assert!(signalled.elapsed() < Duration::from_secs(30), "{:?}", signalled.elapsed());
        assert!(aborted.await.unwrap().is_err());
    }
    auth.stop().await;
}
