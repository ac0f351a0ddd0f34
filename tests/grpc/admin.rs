//! The admin port of each service, which probes and Prometheus use.

use std::net::SocketAddr;

use muse_tests::{Stack, http_client::HttpClient, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn status(admin_port: SocketAddr, path: &str) -> u16 {
    HttpClient::new(admin_port).send("GET", path, &[], "").await.status.as_u16()
}

async fn wait_for(admin_port: SocketAddr, readiness: u16) {
    until(async || (status(admin_port, "/readyz").await == readiness).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_serving_and_liveness_does_not() {
    let Stack { data: _data, auth, embedder, gateway } = Stack::start().await;
    for service in [&auth, &embedder, &gateway] {
        assert_eq!(status(service.admin_port, "/readyz").await, 200);
    }
    embedder.stop().await;
    wait_for(gateway.admin_port, 503).await;
    assert_eq!(status(gateway.admin_port, "/livez").await, 200);

    // An incomplete request delays the shutdown.
    let mut request = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST /login HTTP/1.1\r\nhost: muse\r\nconnection: close\r\nexpect: 100-continue\r\n\
                content-type: application/json\r\ncontent-length: 2\r\n\r\n";
    request.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 12];
    request.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    let admin_port = gateway.admin_port;
    let stopped = tokio::spawn(gateway.stop());
    wait_for(admin_port, 503).await;
    assert_eq!(status(admin_port, "/livez").await, 200);
    assert!(!stopped.is_finished());
    request.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 4"), "{answer}");
    stopped.await.unwrap();
    assert!(TcpStream::connect(admin_port).await.is_err(), "the admin port closes with the service");
    auth.stop().await;
}
