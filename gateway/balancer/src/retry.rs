//! Retries: a call is sent to another embedder if the first one fails.
//!
//! `Embed`, `Tokenize` and `GetModel` are idempotent. They are retried within the caller's deadline and the
//! [retry budget](super::retry_budget) if the connection breaks, even in the middle of the response (which is buffered until it is
//! complete), and if the endpoint returns UNAVAILABLE. A call may itself break the connection, and would break others. So it is not
//! retried while the endpoint accepts connections, and once at most if the endpoint does not. A stream is retried only
//! before its response begins, and while its replay body is complete.
//!
//! A call that is rejected with OVERLOADED is sent to one other endpoint, within the same budget. The endpoint is not ejected: the
//! cause may be the deadline of the call, or the user's own backlog.
//!
//! With a single endpoint nothing is buffered. Beyond the bound on buffered bytes, calls are sent without retries.

use std::{
    error::Error as StdError,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, request};
use muse_proto::{Error, Reason};
use muse_server::deadline;
use muse_telemetry::request_telemetry::TracedClient;
use tokio_util::sync::DropGuard;
use tonic::{Code, Status, TimeoutExpired, body::Body, transport::Channel};
use tower::{Service, ServiceExt};
use tracing::debug;

use super::{
    Balancer,
    buffered_body::BufferedBody,
    endpoint::{EmbedderEndpoint, InFlight, State},
    replay_body::ReplayBody,
    replay_memory::ReplayMemory,
    tracked_body::TrackedBody,
};

/// The idempotent methods.
const IDEMPOTENT: [&str; 3] = ["Embed", "Tokenize", "GetModel"];
/// Endpoints that a call is sent to at most.
const MAX_ATTEMPTS: usize = 3;
/// The load of a call besides its bytes: about what a forward pass costs for a few words more.
const CALL_WEIGHT: usize = 256;
/// The load of a stream, whose bytes come and go.
const STREAM_WEIGHT: usize = 8 << 10;
/// Bytes of the replay body of a call: the largest request of the embedder, and some for its frame.
const CALL_REPLAY_BYTES: usize = (16 << 20) + 1024;
/// Bytes of the replay body of a stream.
const STREAM_REPLAY_BYTES: usize = 64 << 10;

type BoxError = Box<dyn StdError + Send + Sync>;

/// No embedder was resolved.
#[derive(Debug, thiserror::Error)]
#[error("no embedder is known")]
struct NoEmbedder;

/// The outcome of an attempt.
enum Outcome {
    /// A response, or an error that another endpoint would return, too.
    Final(Result<Response<Body>, BoxError>),
    /// The endpoint failed: another one may serve the call.
    Lost(Result<Response<Body>, BoxError>),
    /// The endpoint rejected the call.
    Rejected(Response<Body>),
}

impl Outcome {
    fn into_result(self) -> Result<Response<Body>, BoxError> {
        match self {
            Self::Final(result) | Self::Lost(result) => result,
            Self::Rejected(response) => Ok(response),
        }
    }
}

impl Service<Request<Body>> for Balancer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<Body>) -> Self::Future {
        let balancer = self.clone();
        async move { balancer.send(call).await }.boxed()
    }
}

impl Balancer {
    /// Time for a call: until its deadline, `CALL_TIMEOUT` at most.
    fn wait_for(&self, head: &request::Parts) -> Duration {
        deadline::of(&head.headers).map_or(self.0.call_timeout, |wait| wait.min(self.0.call_timeout))
    }

    async fn send(self, call: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.next_turn();
        let endpoint = self.choose(State::Unavailable, &[]).ok_or(NoEmbedder)?;
        if self.choose(State::Unknown, std::slice::from_ref(&endpoint)).is_some() {
            return self.send_to_any(call, endpoint).await;
        }
        let pure = is_pure(&call);
        let in_flight = Arc::new(InFlight::new(&endpoint, weight(pure)));
        let (channel, connection) = channel(&endpoint, pure);
        let answer = channel.oneshot(call).await?;
        Ok(answer.map(|body| counted(body, in_flight, connection)))
    }

    /// Sends a call to an endpoint, and to others if that fails.
    async fn send_to_any(
        &self,
        call: Request<Body>,
        mut endpoint: Arc<EmbedderEndpoint>,
    ) -> Result<Response<Body>, BoxError> {
        let pure = is_pure(&call);
        let (mut head, body) = call.into_parts();
        let end = Instant::now() + self.wait_for(&head);
        let store = &self.0.store;
        let kept = ReplayBody::new(
            body,
            if pure { CALL_REPLAY_BYTES } else { STREAM_REPLAY_BYTES },
            store.reservation(),
        );
        let (mut tried, mut rejected, mut broke) = (Vec::new(), false, false);
        loop {
            tried.push(Arc::clone(&endpoint));
            let outcome = call_endpoint(&endpoint, &head, &kept, pure.then_some(store)).await;
            let worst = match &outcome {
                Outcome::Final(_) => None,
                Outcome::Lost(lost) => {
                    endpoint.eject();
                    let again = match lost {
                        Err(failure) if broke_connection(&**failure) => {
                            !std::mem::replace(&mut broke, true) && !endpoint.is_reachable().await
                        }
                        _ => true,
                    };
                    again.then_some(State::Unknown)
                }
                Outcome::Rejected(_) => (!std::mem::replace(&mut rejected, true)).then_some(State::Serving),
            };
            let next = worst.filter(|_| kept.is_whole() && tried.len() < MAX_ATTEMPTS).and_then(|worst| {
                let next = self.choose(worst, &tried)?;
                deadline::set(&mut head.headers, end).ok()?;
                self.0.budget.withdraw().then_some(next)
            });
            let Some(next) = next else {
                kept.let_go();
                self.0.budget.deposit();
                return outcome.into_result();
            };
            debug!(from = %endpoint.address, to = %next.address, "a call is retried");
            endpoint = next;
        }
    }
}

fn method_of<T>(call: &Request<T>) -> Option<&str> {
    call.uri().path().rsplit('/').next()
}

fn is_pure<T>(call: &Request<T>) -> bool {
    method_of(call).is_some_and(|method| IDEMPOTENT.contains(&method))
}

/// The connection for a call: the shared one, or a dedicated one with the guard that closes it.
fn channel(endpoint: &EmbedderEndpoint, pure: bool) -> (TracedClient<Channel>, Option<DropGuard>) {
    if pure {
        return (endpoint.channel.clone(), None);
    }
    let (channel, connection) = endpoint.dedicated_channel();
    (channel, Some(connection))
}

fn weight(pure: bool) -> usize {
    if pure { CALL_WEIGHT } else { STREAM_WEIGHT }
}

/// Makes a call to one endpoint. The response is buffered if there is memory for it.
async fn call_endpoint(
    endpoint: &Arc<EmbedderEndpoint>,
    head: &request::Parts,
    kept: &ReplayBody,
    store: Option<&ReplayMemory>,
) -> Outcome {
    let pure = store.is_some();
    let in_flight = Arc::new(InFlight::new(endpoint, weight(pure)));
    let body = kept.send(Arc::clone(&in_flight), pure);
    let (channel, connection) = channel(endpoint, pure);
    let answered = channel.oneshot(Request::from_parts(head.clone(), body)).await;
    let failed = |failure: BoxError| {
        let is_final = kept.is_broken() || ran_out_of_time(&*failure) || violates_protocol(&*failure);
        if is_final { Outcome::Final(Err(failure)) } else { Outcome::Lost(Err(failure)) }
    };
    let (head, body) = match answered {
        Ok(answer) => answer.into_parts(),
        Err(failure) => return failed(failure.into()),
    };
    let (status, body) = match store {
        None => (Status::from_header_map(&head.headers), counted(body, in_flight, connection)),
        Some(store) => match BufferedBody::read(body, store).await {
            Err(failure) => return failed(failure.into()),
            Ok(held) => {
                let status = Status::from_header_map(held.trailers().unwrap_or(&head.headers));
                let body =
                    if held.is_whole() { Body::new(held) } else { counted(Body::new(held), in_flight, None) };
                (status, body)
            }
        },
    };
    classify(Response::from_parts(head, body), status)
}

fn classify(answer: Response<Body>, status: Option<Status>) -> Outcome {
    match status {
        Some(status) if status.code() == Code::Unavailable => Outcome::Lost(Ok(answer)),
        Some(status) if is_overloaded(&status) => Outcome::Rejected(answer),
        _ => Outcome::Final(Ok(answer)),
    }
}

fn is_overloaded(status: &Status) -> bool {
    // Details take a while to decode, and most calls succeed.
    status.code() == Code::ResourceExhausted && Error::from(status).reason() == Reason::Overloaded
}

fn counted(body: Body, call: Arc<InFlight>, connection: Option<DropGuard>) -> Body {
    Body::new(TrackedBody { body, call, _connection: connection, broken: false })
}

/// Whether an established connection broke, other than by a timeout.
fn broke_connection(failure: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(failure), |&failure| failure.source())
        .filter_map(<dyn StdError>::downcast_ref::<hyper::Error>)
        .any(|failure| !failure.is_timeout())
}

/// Whether one side reports a violation of HTTP/2. This call may have caused it, so it is not retried.
fn violates_protocol(failure: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(failure), |&failure| failure.source())
        .filter_map(<dyn StdError>::downcast_ref::<h2::Error>)
        .filter_map(h2::Error::reason)
        .any(|reason| {
            !matches!(reason, h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM | h2::Reason::CANCEL)
        })
}

/// Whether the failure is a timeout.
#[must_use]
pub fn ran_out_of_time(failure: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(failure), |&failure| failure.source())
        .any(<dyn StdError>::is::<TimeoutExpired>)
}
