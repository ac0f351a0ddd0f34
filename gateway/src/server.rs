//! The connections: HTTP/1.1 and HTTP/2 on one port, bounded in what a client can hold on to without asking anything.

use std::{io, time::Duration};

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
use muse_chassis::{Shutdown, lingering::Lingering};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

/// How long a client may take for the head of a request, the wait for the next one on its connection included.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// An HTTP/2 connection that is silent for this long is asked whether anybody is there,
const PING_AFTER: Duration = Duration::from_secs(30);
/// and is closed without an answer within this.
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// Calls at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1_000;
/// How long to wait when the system has no room for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of it.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// Serves until the shutdown closes the listener, and then until all connections have ended or the grace is over.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let router = router.layer(from_fn_with_state(shutdown.announced.clone(), let_go));
    let server = builder();
    let connections = GracefulShutdown::new();
    while let Some(accepted) = shutdown.closing.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(failure) => {
                refused(&failure).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let router = router.clone().layer(Extension(ConnectInfo(peer)));
        let service = TowerToHyperService::new(
            router.map_request(|request: http::Request<Incoming>| request.map(Body::new)),
        );
        let (server, watcher, stopping) = (server.clone(), connections.watcher(), shutdown.closing.clone());
        tokio::spawn(async move {
            let heard = stopping.run_until_cancelled(says_its_version(&stream));
            if !matches!(tokio::time::timeout(HEAD_WITHIN, heard).await, Ok(Some(true))) {
                return;
            }
            let connection = server.serve_connection(TokioIo::new(Lingering::new(stream)), service);
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

/// Whether a client has said enough for the version of HTTP to be known; until then hyper's own timeouts do not run.
async fn says_its_version(stream: &TcpStream) -> bool {
    let mut said = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut said).await {
            Ok(0) | Err(_) => return false,
            Ok(length) if length < PREFACE.len() && PREFACE.starts_with(&said[..length]) => {
                tokio::time::sleep(PREFACE_PAUSE).await;
            }
            Ok(_) => return true,
        }
    }
}

/// After a failure to accept: if it was the client's own, go on at once, else (no more files, say) wait for some to end.
async fn refused(failure: &io::Error) {
    let of_the_client =
        [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
    if !of_the_client.contains(&failure.kind()) {
        warn!(%failure, "cannot accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
