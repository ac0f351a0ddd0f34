//! The settings of every gRPC server and channel of the stack.

use std::{io, time::Duration};

use futures::{Stream, TryStreamExt};
use muse_telemetry::{
    request_telemetry::{RequestTelemetry, TelemetryLayer, call_of},
    with_causes,
};
use tonic::transport::{Channel, Endpoint, Error, Server, server::Router};
use tower::layer::util::{Identity, Stack};

use crate::{
    Shutdown,
    deadline::DeadlineLayer,
    error_mapping::ErrorMapping,
    health::Health,
    lingering_close::LingeringClose,
    tls::{Connector, Socket},
};

/// Bytes of a request that may be on their way before they are read. It bounds what a stream holds whose answers nobody reads.
const REQUEST_WINDOW: u32 = 64 << 10;
/// The same of an answer.
const ANSWER_WINDOW: u32 = 256 << 10;
/// The same of all calls on a connection: as many as HTTP/2 allows. The calls of all users share the connection between
/// two services; with less, a few whose callers do not read, or send more than is read, would keep all others waiting.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Calls at a time on a connection between two services: more than 100 users have open. One more would wait in the connection,
/// first come, first served, instead of in the queue that is fair to users.
const MAX_CALLS: u32 = 100_000;
/// Bytes of the headers of a call or an answer between two services, as HTTP/2 counts them: more than the public port accepts, so
/// that no caller's headers can break a connection that all share.
const HEADERS: u32 = 64 << 10;
/// HTTP/2's limits on reset streams (CVE-2023-44487, CVE-2025-8671) close a connection, which here is shared by all callers. The
/// public port has such limits, where they close the connection of the one who resets; between the services there are none.
const NO_RESET_LIMIT: usize = usize::MAX;
/// Calls that were given up and whose remaining frames are still recognised; those of others are answered with RST_STREAM.
const REMEMBERED_RESETS: usize = 10_000;

/// The layers of a service, the innermost first.
pub type Layers = Stack<DeadlineLayer, Stack<ErrorMapping, Stack<TelemetryLayer, Identity>>>;

/// A server with the stack's settings, which follows its calls.
#[must_use]
pub fn server(requests: RequestTelemetry) -> Server<Layers> {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(REQUEST_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_CALLS)
        .http2_max_header_list_size(HEADERS)
        .http2_max_pending_accept_reset_streams(Some(NO_RESET_LIMIT))
        .http2_max_local_error_reset_streams(Some(NO_RESET_LIMIT))
        .layer(TelemetryLayer { requests, route: call_of })
        .layer(ErrorMapping)
        .layer(DeadlineLayer)
}

/// Where another service of the stack is, with the stack's settings.
///
/// # Errors
///
/// If `url` is not a URL, or names no host.
pub fn endpoint(url: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|refused| with_causes(&refused))?;
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err("it names no host".to_owned());
    }
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(ANSWER_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_max_concurrent_reset_streams(REMEMBERED_RESETS)
        .http2_max_local_error_reset_streams(NO_RESET_LIMIT))
}

/// A channel to it, which connects when it is first used and again after a break.
#[must_use]
pub fn channel(endpoint: &Endpoint, connector: &Connector) -> Channel {
    endpoint.connect_with_connector_lazy(connector.clone())
}

/// Serves the connections of [`tls::incoming`](crate::tls::incoming) until the shutdown closes it, and then until the calls that
/// have begun are answered or the grace is over. Connections are told to open no further calls (GOAWAY).
///
/// From the announcement of the shutdown on `health` says that nothing serves.
///
/// # Errors
///
/// If the server fails.
pub async fn serve(
    router: Router<Layers>,
    incoming: impl Stream<Item = io::Result<Socket>>,
    health: Health,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let incoming = incoming.map_ok(LingeringClose::new);
    let server = router.serve_with_incoming_shutdown(incoming, shutdown.closing.clone().cancelled_owned());
    let announced = shutdown.announced.clone();
    let told = async move {
        announced.cancelled().await;
        health.stop();
        std::future::pending().await
    };
    tokio::select! {
        served = server => served,
        () = shutdown.out_of_grace() => Ok(()),
        never = told => never,
    }
}
