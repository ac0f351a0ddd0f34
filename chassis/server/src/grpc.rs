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

/// Flow-control window of a request, in bytes. It bounds the memory of a stream whose responses are
/// not read.
const REQUEST_WINDOW: u32 = 64 << 10;
/// Flow-control window of a response, in bytes.
const RESPONSE_WINDOW: u32 = 256 << 10;
/// Flow-control window of a connection, in bytes: the maximum of HTTP/2. The calls of all users
/// share the connection between two services; with a smaller window, a few calls whose data is not
/// read would block all others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Concurrent calls on a connection between two services: more than 100 users can open. Further
/// calls would wait in the connection, in order of arrival, instead of in the fair queue.
const MAX_CALLS: u32 = 100_000;
/// Bytes of the headers of a call or a response between two services, as HTTP/2 counts them: more
/// than the public port accepts, so that no caller's headers can break the shared connection.
const HEADERS: u32 = 64 << 10;
/// Disables HTTP/2's limits on reset streams (CVE-2023-44487, CVE-2025-8671) between the services:
/// they close a connection, which here is shared by all callers. The public port has such limits;
/// there they close the connection of the client that resets.
const NO_RESET_LIMIT: usize = usize::MAX;
/// Cancelled calls whose remaining frames are still recognised; frames of older ones are answered
/// with RST_STREAM.
const REMEMBERED_RESETS: usize = 10_000;

/// The layers of a service, innermost first.
pub type Layers = Stack<DeadlineLayer, Stack<ErrorMapping, Stack<TelemetryLayer, Identity>>>;

/// A server with the settings of the stack and request telemetry.
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

/// The endpoint of another service, with the settings of the stack.
///
/// # Errors
///
/// If `url` is not a URL, or has no host.
pub fn endpoint(url: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| with_causes(&error))?;
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err("it has no host".to_owned());
    }
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(RESPONSE_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_max_concurrent_reset_streams(REMEMBERED_RESETS)
        .http2_max_local_error_reset_streams(NO_RESET_LIMIT))
}

/// A channel to an endpoint, which connects at its first use and reconnects after a failure.
#[must_use]
pub fn channel(endpoint: &Endpoint, connector: &Connector) -> Channel {
    endpoint.connect_with_connector_lazy(connector.clone())
}

/// Serves the connections of [`tls::incoming`](crate::tls::incoming) until the shutdown closes the
/// listener, and then until the calls in flight have finished or the grace period is over. Clients
/// receive GOAWAY, and open no further calls.
///
/// When the shutdown is announced, `health` changes to not serving.
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
    let stop_health = async move {
        announced.cancelled().await;
        health.stop();
        std::future::pending().await
    };
    tokio::select! {
        served = server => served,
        () = shutdown.grace_expired() => Ok(()),
        pending = stop_health => pending,
    }
}
