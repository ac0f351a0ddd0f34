//! One attempt: a call is sent to one endpoint, and counts as its load until the response ends.

use std::sync::Arc;

use http::{Request, Response, request};
use muse_telemetry::request_telemetry::TracedClient;
use tokio_util::sync::DropGuard;
use tonic::{Status, body::Body, transport::Channel};
use tower::{BoxError, ServiceExt};

use super::{
    buffered_body::BufferedBody,
    endpoint::EmbedderEndpoint,
    load::{InFlight, WeighedBody},
    model::{self, ModelIdentity},
    replay_body::ReplayBody,
    replay_memory::ReplayMemory,
    retry_policy::{Outcome, classify_failure, classify_response},
    tracked_body::TrackedBody,
};

/// The idempotent methods.
const IDEMPOTENT: [&str; 4] = ["Embed", "Tokenize", "GetModel", "GetStatus"];
/// The streaming method.
const STREAM: &str = "EmbedStream";
/// The load of an idempotent call besides its bytes: about what a forward pass costs for a few words more.
const IDEMPOTENT_WEIGHT: usize = 256;
/// The load of a stream, whose bytes come and go.
const STREAM_WEIGHT: usize = 8 << 10;

/// How a call is sent and retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// An unary call of an idempotent method. Its response is buffered, so that it can be retried until that is complete.
    Idempotent,
    /// A stream. It has a connection of its own, and is retried only before its response begins.
    Stream,
    /// A call of another method. It is not retried.
    Other,
}

impl CallKind {
    pub(super) fn of<T>(call: &Request<T>) -> Self {
        match call.uri().path().rsplit('/').next() {
            Some(method) if IDEMPOTENT.contains(&method) => Self::Idempotent,
            Some(STREAM) => Self::Stream,
            _ => Self::Other,
        }
    }

    fn weight(self) -> usize {
        match self {
            Self::Idempotent | Self::Other => IDEMPOTENT_WEIGHT,
            Self::Stream => STREAM_WEIGHT,
        }
    }
}

/// Sends a call that is not retried to an endpoint with this model.
pub(super) async fn send_once(
    endpoint: &EmbedderEndpoint,
    kind: CallKind,
    call: Request<Body>,
    model: &ModelIdentity,
) -> Result<Response<Body>, BoxError> {
    let in_flight = endpoint.load.begin(kind.weight());
    let (channel, connection) = channel(endpoint, kind);
    let response = channel.oneshot(call).await?;
    if model.differs_from(response.headers()) {
        endpoint.eject();
        return Ok(model::changed());
    }
    Ok(response.map(|body| tracked(body, endpoint, in_flight, connection)))
}

/// Sends a call that may be retried to an endpoint with this model. The response to an idempotent call is buffered if there is memory for it.
pub(super) async fn send_replayable(
    endpoint: &EmbedderEndpoint,
    kind: CallKind,
    head: request::Parts,
    replay: &ReplayBody,
    memory: &ReplayMemory,
    model: &ModelIdentity,
) -> Outcome {
    let in_flight = endpoint.load.begin(kind.weight());
    let body = match kind {
        CallKind::Idempotent => {
            Body::new(WeighedBody { body: replay.replay(), call: Arc::clone(&in_flight) })
        }
        CallKind::Stream | CallKind::Other => Body::new(replay.replay()),
    };
    let (channel, connection) = channel(endpoint, kind);
    let (head, body) = match channel.oneshot(Request::from_parts(head, body)).await {
        Ok(response) if model.differs_from(response.headers()) => {
            return Outcome::EndpointFailed(Ok(model::changed()));
        }
        Ok(response) => response.into_parts(),
        Err(failure) => return classify_failure(failure.into(), replay.is_aborted()),
    };
    let (status, body) = match kind {
        CallKind::Stream | CallKind::Other => {
            (Status::from_header_map(&head.headers), tracked(body, endpoint, in_flight, connection))
        }
        CallKind::Idempotent => match BufferedBody::read(body, memory).await {
            Err(failure) => return classify_failure(failure.into(), replay.is_aborted()),
            Ok(buffered) => {
                let status = Status::from_header_map(buffered.trailers().unwrap_or(&head.headers));
                let is_complete = buffered.is_complete();
                let body = Body::new(buffered);
                (status, if is_complete { body } else { tracked(body, endpoint, in_flight, None) })
            }
        },
    };
    classify_response(Response::from_parts(head, body), status)
}

/// The connection for a call: the shared one, or a dedicated one with the guard that closes it.
fn channel(endpoint: &EmbedderEndpoint, kind: CallKind) -> (TracedClient<Channel>, Option<DropGuard>) {
    match kind {
        CallKind::Idempotent | CallKind::Other => (endpoint.channel.clone(), None),
        CallKind::Stream => {
            let (channel, connection) = endpoint.dedicated_channel();
            (channel, Some(connection))
        }
    }
}

fn tracked(
    body: Body,
    endpoint: &EmbedderEndpoint,
    call: Arc<InFlight>,
    connection: Option<DropGuard>,
) -> Body {
    Body::new(TrackedBody::new(body, endpoint.address, call, connection))
}
