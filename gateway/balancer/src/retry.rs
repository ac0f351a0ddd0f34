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
//!
//! This is one loop, not tower's `Retry` around a balancing service: a retry depends on which endpoints were tried, on the state of
//! the others, and on a connection test, and the budget is charged only if there is another endpoint.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, request};
use muse_proto::limits::MAX_REQUEST_BYTES;
use muse_server::deadline;
use tonic::body::Body;
use tower::Service;
use tracing::debug;

use super::{
    Balancer,
    attempt::{BoxError, CallKind, send_once, send_replayable},
    endpoint::{EmbedderEndpoint, State},
    replay_body::ReplayBody,
    retry_policy::{Outcome, RetryDecision, RetryPolicy},
};

/// Bytes of the replay body of an idempotent call: the largest request of the embedder, and some for its frame.
const IDEMPOTENT_REPLAY_BYTES: usize = MAX_REQUEST_BYTES + 1024;
/// Bytes of the replay body of a stream.
const STREAM_REPLAY_BYTES: usize = 64 << 10;

/// No embedder was resolved.
#[derive(Debug, thiserror::Error)]
#[error("no embedder is known")]
struct NoEmbedder;

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
    async fn send(self, call: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.next_turn();
        let endpoint = self.pick(State::Unavailable, &[]).ok_or(NoEmbedder)?;
        let kind = CallKind::of(&call);
        let has_other = || self.pick(State::Unknown, std::slice::from_ref(&endpoint)).is_some();
        if kind != CallKind::Other && has_other() {
            self.send_with_retries(call, kind, endpoint).await
        } else {
            send_once(&endpoint, kind, call).await
        }
    }

    /// Sends a call to an endpoint, and to others if that fails.
    async fn send_with_retries(
        &self,
        call: Request<Body>,
        kind: CallKind,
        mut endpoint: Arc<EmbedderEndpoint>,
    ) -> Result<Response<Body>, BoxError> {
        let (mut head, body) = call.into_parts();
        let end = Instant::now() + self.timeout(&head);
        let memory = &self.0.replay_memory;
        let capacity = match kind {
            CallKind::Idempotent => IDEMPOTENT_REPLAY_BYTES,
            CallKind::Stream | CallKind::Other => STREAM_REPLAY_BYTES,
        };
        let replay = ReplayBody::new(body, capacity, memory.reservation());
        let mut policy = RetryPolicy::default();
        loop {
            let outcome = send_replayable(&endpoint, kind, head.clone(), &replay, memory).await;
            if let Outcome::EndpointFailed(_) = outcome {
                endpoint.eject();
            }
            let worst = match policy.after_attempt(&endpoint, &outcome) {
                RetryDecision::No => None,
                RetryDecision::Yes(worst) => Some(worst),
                RetryDecision::IfUnreachable(worst) => (!endpoint.is_reachable().await).then_some(worst),
            };
            let next = worst.filter(|_| replay.is_replayable()).and_then(|worst| {
                let next = self.pick(worst, policy.tried())?;
                deadline::set(&mut head.headers, end).ok()?;
                self.0.retry_budget.withdraw().then_some(next)
            });
            let Some(next) = next else {
                replay.discard();
                if outcome.is_served() {
                    self.0.retry_budget.deposit();
                }
                return outcome.into_result();
            };
            debug!(from = %endpoint.address, to = %next.address, "a call is retried");
            endpoint = next;
        }
    }

    /// Time for a call with its retries: until its deadline, `CALL_TIMEOUT` at most.
    fn timeout(&self, head: &request::Parts) -> Duration {
        let call_timeout = self.0.call_timeout;
        deadline::of(&head.headers).map_or(call_timeout, |left| left.min(call_timeout))
    }
}
