//! The connections: HTTP/1.1 and HTTP/2 on one port, bounded in what a client can hold on to without asking anything.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use http::{HeaderValue, Version, header::CONNECTION};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use muse_chassis::{
    Shutdown,
    lingering::Lingering,
    tls::{Acceptor, Socket, accept},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use crate::client_address::OverTls;

/// How long a client may take for the head of a request, the wait for the next one on its connection included.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// An HTTP/2 connection that is silent for this long is asked whether anybody is there,
const PING_AFTER: Duration = Duration::from_secs(30);
/// and is closed without an answer within this.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// Calls at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1_000;

/// Serves until the shutdown closes the listener, and then until all connections have ended or the grace is over.
pub(crate) async fn serve(listener: TcpListener, acceptor: Acceptor, router: Router, shutdown: Shutdown) {
    let router = router.layer(from_fn_with_state(shutdown.announced.clone(), let_go));
    let server = builder();
    let connections = GracefulShutdown::new();
    while let Some((stream, peer)) = shutdown.closing.run_until_cancelled(accept(&listener)).await {
        let (acceptor, router) = (acceptor.clone(), router.clone());
        let (server, watcher, stopping) = (server.clone(), connections.watcher(), shutdown.closing.clone());
        tokio::spawn(async move {
            let begun = stopping.run_until_cancelled(begin(&acceptor, stream, peer));
            let Some(Some(socket)) = begun.await else { return };
            let over_tls = socket.is_tls().then_some(OverTls);
            let service = router.layer(Extension(ConnectInfo(peer))).map_request(
                move |mut request: http::Request<Incoming>| {
                    if let Some(mark) = over_tls {
                        request.extensions_mut().insert(mark);
                    }
                    request.map(Body::new)
                },
            );
            let io = TokioIo::new(Lingering::new(socket));
            let connection = server.serve_connection(io, TowerToHyperService::new(service));
            if let Err(failure) = watcher.watch(connection).await {
                debug!(%peer, failure, "a connection broke");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = connections.shutdown() => (),
        () = shutdown.out_of_grace() => (),
    }
}

/// Once the service is not ready any more, a connection of HTTP/1.1 ends with its next answer, and the client opens another
/// one, where its load balancer says. It would lose a request that it sends just when the connection is closed.
async fn let_go(State(announced): State<CancellationToken>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = next.run(request).await;
    if version <= Version::HTTP_11 && announced.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(4 << 20);
    builder
}

/// The connection, when the client has said enough for the version of HTTP to be known; until then hyper's own timeouts do
/// not run.
async fn begin(acceptor: &Acceptor, stream: TcpStream, peer: SocketAddr) -> Option<Socket> {
    let mut socket = acceptor.begin(stream, peer).await?;
    let said = timeout(HEAD_WITHIN, socket.says_its_version()).await;
    (said == Ok(true)).then_some(socket)
}
