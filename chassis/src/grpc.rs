//! The settings of every gRPC server and channel of the stack.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code,
    transport::{
        Endpoint, Error, Server,
        server::{Router, TcpIncoming},
    },
};
use tonic_health::server::HealthReporter;
use tower::{
    Layer, Service,
    layer::util::{Identity, Stack},
};
use tracing::warn;

/// How long calls that have begun may go on after the signal to stop.
pub const GRACE: Duration = Duration::from_secs(10);

/// A server with the stack's settings.
#[must_use]
pub fn server() -> Server<Stack<MalformedIsInvalid, Identity>> {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .layer(MalformedIsInvalid)
}

/// Where another service of the stack is, with the stack's settings.
///
/// # Errors
///
/// If `url` is not a URL.
pub fn endpoint(url: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20))
}

/// Answers a request that cannot be decoded (invalid UTF-8 in a string, say) with INVALID_ARGUMENT: it is the
/// caller's fault, where tonic says INTERNAL.
#[derive(Debug, Clone, Copy)]
pub struct MalformedIsInvalid;

impl<S> Layer<S> for MalformedIsInvalid {
    type Service = MalformedIsInvalidService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MalformedIsInvalidService(inner)
    }
}

/// The service of [`MalformedIsInvalid`].
#[derive(Debug, Clone)]
pub struct MalformedIsInvalidService<S>(S);

impl<S, Req, Res> Service<Request<Req>> for MalformedIsInvalidService<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures::future::MapOk<S::Future, fn(Response<Res>) -> Response<Res>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        futures::TryFutureExt::map_ok(self.0.call(request), |mut response| {
            let headers = response.headers_mut();
            let undecodable = headers.get("grpc-message").is_some_and(|text| {
                text.as_bytes().starts_with(b"failed%20to%20decode%20Protobuf%20message")
            });
            if undecodable {
                headers.insert("grpc-status", HeaderValue::from(Code::InvalidArgument as u16));
            }
            response
        })
    }
}

/// Serves on `listener` until `shutdown`, and then until the calls that have begun are answered, but not longer than
/// [`GRACE`].
///
/// From the shutdown on `health` knows none of `services` any more: those who watch them are told by the end of the
/// stream, which would else hold the shutdown up.
///
/// # Errors
///
/// If the server fails.
pub async fn serve(
    router: Router<Stack<MalformedIsInvalid, Identity>>,
    listener: TcpListener,
    mut health: HealthReporter,
    services: &'static [&'static str],
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let stopped = shutdown.clone();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = router.serve_with_incoming_shutdown(incoming, async move {
        stopped.cancelled().await;
        for service in services {
            health.clear_service_status(service).await;
        }
    });
    tokio::select! {
        served = server => served,
        () = out_of_grace(shutdown) => Ok(()),
    }
}

/// Ends [`GRACE`] after the shutdown, with a warning.
pub async fn out_of_grace(shutdown: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(GRACE).await;
    warn!("some calls were still going on when the time for them was over");
}
