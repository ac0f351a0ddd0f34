//! Request heads beyond the limits of all services.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use muse_tests::{
    isolation::{
        canary::Canary,
        stack::{Settings, Stack},
    },
    until,
};

use crate::beside_others;

/// The called paths with their content types.
const PATHS: [(&str, &str); 6] = [
    ("/muse.v1.AuthService/Login", "application/grpc"),
    ("/muse.v1.AuthService/Login", "application/grpc-web+proto"),
    ("/muse.v1.EmbedderService/Embed", "application/grpc"),
    ("/muse.v1.EmbedderService/Embed", "application/grpc-web+proto"),
    ("/embed", "application/json"),
    ("/login", "application/json"),
];

/// Statuses of a call with `bytes` of headers, in one field and in many.
async fn statuses(gateway: SocketAddr, http2: bool, token: &str, bytes: usize) -> Vec<Option<u16>> {
    let mut statuses = Vec::new();
    for (path, kind) in PATHS {
        for fields in [1, 64] {
            // Such a call may close its connection, so each call has its own.
            let client: Client<_, Full<Bytes>> =
                Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
            let mut request = Request::post(format!("http://{gateway}{path}"))
                .header("content-type", kind)
                .header("authorization", format!("Bearer {token}"));
            for field in 0..fields {
                let name = HeaderName::try_from(format!("x-big-{field}")).expect("a name");
                request =
                    request.header(name, HeaderValue::try_from("0".repeat(bytes / fields)).expect("ASCII"));
            }
            let request = request.body(Full::from(vec![0; 5])).expect("the request is well-formed");
            let response = tokio::time::timeout(Duration::from_secs(10), client.request(request)).await;
            statuses.push(
                response
                    .expect("the gateway answers or closes")
                    .ok()
                    .map(|response| response.status().as_u16()),
            );
        }
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_heads_leave_all_embedders_available() {
    let _guard = beside_others().await;
    let settings = Settings { embedders: 3, environment: &[("MUSE_THREADS", "1")], ..Settings::default() };
    let mut stack = Stack::start(&settings).await;
    until(async || (stack.gateway.metric("muse_embedders_serving").await == Ok(3.0)).then_some(())).await;
    let canary = Canary::start(&stack).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let connections = stack.upstream_connections();

    for http2 in [false, true] {
        for bytes in [40_000, 120_000, 300_000, 1_000_000] {
            for status in statuses(stack.gateway.address, http2, &stack.admin, bytes).await {
                // A client that is still writing when the gateway closes may not receive the
                // response; hyper's HTTP/2 server closes the connection beyond a multiple of the
                // limit.
                let closed = status.is_none() && bytes > 40_000;
                assert!(closed || status == Some(431), "HTTP/2: {http2}, {bytes} bytes: {status:?}");
            }
        }
    }
    let serving = stack.gateway.metric("muse_embedders_serving").await;
    assert_eq!(serving, Ok(3.0));
    let lost = connections.difference(&stack.upstream_connections()).count();
    assert_eq!(lost, 0, "connections between services were closed\n{}", stack.gateway.log());
    let noticed = canary.take();
    assert!(noticed.failed().is_empty(), "{:?}", noticed.failed());
    stack.assert_running();
    drop(canary);
    stack.stop().await;
}
