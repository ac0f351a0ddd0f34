//! The connections: HTTP/1.1 and HTTP/2 on one port, bounded in what a client can hold on to without asking anything.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderValue, Version, header::CONNECTION};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use muse_server::{
    ConnectionLimits, Shutdown,
    lingering_close::LingeringClose,
    tls::{Acceptor, Socket},
};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt};
use tracing::debug;

use crate::middleware::{
    Around, AroundLayer, ConnectionResponses, Rejection, StreamExecutor,
    client_address::{OverTls, Peer},
    run_connection,
};

/// How long a client may take for the head of a request, the wait for the next one on its connection included.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// An HTTP/2 connection that is silent for this long is asked whether anybody is there,
const PING_AFTER: Duration = Duration::from_secs(30);
/// and is closed without an answer within this.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// Calls at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// How long a client may take to send so much that the version of HTTP is known.
const VERSION_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of a request's head: the request line and headers, as HTTP/2 counts them. A larger one is answered with 431. The services
/// behind allow more (`muse_server::grpc`).
const HEAD_BYTES: usize = 32 << 10;
/// HTTP/2's limits on reset streams (CVE-2023-44487, CVE-2025-8671), which close the connection of the client that exceeds them:
/// streams that the client has reset before they were looked at,
const PENDING_RESETS: usize = 1_000;
/// and streams that had to be reset for an error of the client, in the life of a connection.
const ERROR_RESETS: usize = 10_000;
/// Bytes of a request's body that may be on their way before they are read, of a stream and of a connection. Half of the latter
/// is also what h2 spends on small frames that nobody has read yet: a quarter of a kilobyte for each.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a response that wait in a stream for its client.
const SEND_BUFFER: usize = 128 << 10;

/// What clients may have open, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) connections: ConnectionLimits,
    /// See [`run_connection`].
    pub(crate) send_timeout: Duration,
}

/// Serves until the shutdown closes the listener, and then until all connections have ended or the grace is over.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    acceptor: Acceptor,
    app: S,
    limits: Limits,
    shutdown: Shutdown,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let app = AroundLayer(EndOfConnections(shutdown.announced.clone())).layer(app);
    let server = builder();
    let connections = GracefulShutdown::new();
    let next = || limits.connections.accept(&listener);
    while let Some((stream, peer, permit)) = shutdown.closing.run_until_cancelled(next()).await {
        limit_unacknowledged(&stream, limits.send_timeout);
        let (acceptor, app) = (acceptor.clone(), app.clone());
        let (server, watcher, stopping) = (server.clone(), connections.watcher(), shutdown.closing.clone());
        let responses = ConnectionResponses::default();
        let mark = responses.clone();
        let connection = async move {
            let _permit = permit;
            let begun = stopping.run_until_cancelled(begin(&acceptor, stream, peer));
            let Some(Some(socket)) = begun.await else { return };
            let over_tls = socket.is_tls().then_some(OverTls);
            let service = app.map_request(move |mut request: http::Request<Incoming>| {
                let extensions = request.extensions_mut();
                extensions.insert(Peer(peer));
                extensions.insert(mark.clone());
                if let Some(over_tls) = over_tls {
                    extensions.insert(over_tls);
                }
                request.map(Body::new)
            });
            let io = TokioIo::new(LingeringClose::new(socket));
            let connection = server.serve_connection(io, TowerToHyperService::new(service));
            if let Err(failure) = watcher.watch(connection).await {
                debug!(%peer, failure, "a connection broke");
            }
        };
        run_connection(connection, responses, limits.send_timeout);
    }
    drop(listener);
    tokio::select! {
        () = connections.shutdown() => (),
        () = shutdown.grace_expired() => (),
    }
}

/// Once the service is not ready any more, a connection of HTTP/1.1 ends with its next answer, and the client opens another
/// one, where its load balancer says. It would lose a request that it sends just when the connection is closed.
#[derive(Debug, Clone)]
struct EndOfConnections(CancellationToken);

impl Around for EndOfConnections {
    /// Of a connection of HTTP/1.1.
    type Context = Option<CancellationToken>;

    fn before(&self, request: &mut Request) -> Result<Self::Context, Rejection> {
        Ok((request.version() <= Version::HTTP_11).then(|| self.0.clone()))
    }

    fn after(announced: Self::Context, mut response: Response) -> Response {
        if announced.is_some_and(|announced| announced.is_cancelled()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Has the kernel end a connection whose client acknowledges nothing, or has no room for more, for so long (RFC 5482).
fn limit_unacknowledged(stream: &TcpStream, timeout: Duration) {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(failure) = set_tcp_user_timeout(stream, milliseconds) {
        debug!(%failure, "TCP_USER_TIMEOUT cannot be set");
    }
}

fn builder() -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// The connection, when the client has said enough for the version of HTTP to be known; until then hyper's own timeouts do
/// not run.
async fn begin(acceptor: &Acceptor, stream: TcpStream, peer: SocketAddr) -> Option<Socket> {
    let mut socket = acceptor.begin(stream, peer).await?;
    let preface = timeout(VERSION_WITHIN, socket.read_preface()).await;
    (preface == Ok(true)).then_some(socket)
}
