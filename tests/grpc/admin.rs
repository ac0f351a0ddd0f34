//! The private port of each service: what probes and Prometheus see of it.

use std::net::SocketAddr;

use muse_tests::{Stack, http_client::HttpClient, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn status(private: SocketAddr, path: &str) -> u16 {
    HttpClient::new(private).send("GET", path, &[], "").await.status.as_u16()
}

async fn wait_for(private: SocketAddr, readiness: u16) {
    until(async || (status(private, "/readyz").await == readiness).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_serving_and_liveness_does_not() {
    let Stack { data: _data, auth, embedder, gateway } = Stack::start().await;
    for service in [&auth, &embedder, &gateway] {
        assert_eq!(status(service.private, "/readyz").await, 200);
    }
    embedder.stop().await;
    wait_for(gateway.private, 503).await;
    assert_eq!(status(gateway.private, "/livez").await, 200);

    // A request of which the end is still to come holds the shutdown up.
    let mut request = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST /login HTTP/1.1\r\nhost: muse\r\nconnection: close\r\nexpect: 100-continue\r\n\
                content-type: application/json\r\ncontent-length: 2\r\n\r\n";
    request.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    request.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 100");
    let private = gateway.private;
    let stopped = tokio::spawn(gateway.stop());
    wait_for(private, 503).await;
    assert_eq!(status(private, "/livez").await, 200);
    assert!(!stopped.is_finished());
    request.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 4"), "{answer}");
    stopped.await.unwrap();
    assert!(TcpStream::connect(private).await.is_err(), "the private port closes with the service");
    auth.stop().await;
}
