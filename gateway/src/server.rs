//! The server of the public port: HTTP/1.1 and HTTP/2, with limits on what an idle client can occupy.

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

/// Time for the head of a request, the wait for the next one on its connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Time without traffic after which an HTTP/2 connection is sent a ping,
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// and time for the response, after which it is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Concurrent streams of an HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Time for the bytes that identify the version of HTTP.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a request's head: the request line and headers, as HTTP/2 counts them. A larger head is
/// rejected with 431. The services behind accept larger ones (`muse_server::grpc`).
const HEAD_BYTES: usize = 32 << 10;
/// HTTP/2's limits on reset streams (CVE-2023-44487, CVE-2025-8671). A connection that exceeds them is
/// closed. Streams that the client has reset before they were served,
const PENDING_RESETS: usize = 1_000;
/// and streams that the server has reset for an error of the client, per connection.
const ERROR_RESETS: usize = 10_000;
/// The flow control windows of a stream and of a connection. h2 also allows half of the latter for
/// the overhead of small unread frames, 256 bytes each.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a response that are buffered in a stream.
const SEND_BUFFER: usize = 128 << 10;

/// The limits on connections.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) connections: ConnectionLimits,
    /// See [`run_connection`].
    pub(crate) send_timeout: Duration,
}

/// Serves until the shutdown closes the listener, and then until all connections have ended or the
/// grace period has expired.
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
            let accepted = stopping.run_until_cancelled(handshake(&acceptor, stream, peer));
            let Some(Some(socket)) = accepted.await else { return };
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

/// Ends HTTP/1.1 connections with their next response once the service is not ready. The client opens
/// a new one, which its load balancer routes elsewhere. If the server closed the connection instead,
/// a request that the client is sending would be lost.
#[derive(Debug, Clone)]
struct EndOfConnections(CancellationToken);

impl Around for EndOfConnections {
    /// Cancelled when the service is not ready; `None` for HTTP/2.
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

/// Lets the kernel close a connection whose client acknowledges nothing, or whose window is full, for
/// this long (RFC 5482).
fn limit_unacknowledged(stream: &TcpStream, timeout: Duration) {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(failure) = set_tcp_user_timeout(stream, milliseconds) {
        debug!(%failure, "TCP_USER_TIMEOUT cannot be set");
    }
}

fn builder() -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Completes the handshake, and waits until the version of HTTP is known: hyper's timeouts begin
/// after that.
async fn handshake(acceptor: &Acceptor, stream: TcpStream, peer: SocketAddr) -> Option<Socket> {
    let mut socket = acceptor.begin(stream, peer).await?;
    let preface = timeout(VERSION_TIMEOUT, socket.read_preface()).await;
    (preface == Ok(true)).then_some(socket)
}
