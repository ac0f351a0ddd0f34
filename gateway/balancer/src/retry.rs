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
use muse_proto::{Error, Fingerprint, Reason, limits::MAX_REQUEST_BYTES};
use muse_server::deadline;
use tonic::{Status, body::Body};
use tower::{BoxError, Service};
use tracing::debug;

use super::{
    Balancer,
    attempt::{CallKind, send_once, send_replayable},
    endpoint::{EmbedderEndpoint, State},
    model::{ModelIdentity, ResponseFingerprint},
    replay_body::ReplayBody,
    retry_policy::{Outcome, RetryDecision, RetryPolicy},
};

/// Bytes of the replay body of an idempotent call: the largest request of the embedder, and some for its frame.
const IDEMPOTENT_REPLAY_BYTES: usize = MAX_REQUEST_BYTES + 1024;
/// Bytes of the replay body of a stream.
const STREAM_REPLAY_BYTES: usize = 64 << 10;

/// When a caller may try again if there is no embedder for the call.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// No embedder was resolved, or none has reported its model.
#[derive(Debug, thiserror::Error)]
#[error("no embedder is known")]
struct NoEmbedder;

/// Which model may serve a call.
struct ModelChoice {
    /// The model that the sender has selected, in place of the served one.
    selected: Option<ModelIdentity>,
    /// The fingerprint that the caller requires.
    required: Option<Fingerprint>,
}

impl ModelChoice {
    /// The choice in the extensions and headers of a call.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] if the header is malformed.
    fn of(call: &Request<Body>) -> Result<Self, Error> {
        let required = Fingerprint::required(call.headers())?;
        Ok(Self { selected: call.extensions().get().cloned(), required })
    }

    /// The model for the next attempt; none if none is elected.
    fn current(&self, balancer: &Balancer) -> Option<ModelIdentity> {
        self.selected.clone().or_else(|| balancer.served())
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
        let fingerprint = call.extensions().get::<ResponseFingerprint>().cloned();
        async move {
            let response = balancer.send(call).await?;
            if let Some(fingerprint) = fingerprint {
                fingerprint.set(response.headers());
            }
            Ok(response)
        }
        .boxed()
    }
}

impl Balancer {
    async fn send(self, call: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.next_turn();
        let choice = match ModelChoice::of(&call) {
            Ok(choice) => choice,
            Err(error) => return Ok(Status::from(error).into_http()),
        };
        let Some(model) = choice.current(&self) else { return self.no_endpoint(None) };
        if let Err(error) = model.check(choice.required.as_ref()) {
            return Ok(model.reject(error));
        }
        // If others serve another model, the caller gets the reason instead of a failed attempt.
        let worst = if self.election().unused() > 0 { State::Unknown } else { State::Unavailable };
        let Some(endpoint) = self.pick(worst, &[], &model) else {
            return self.no_endpoint(Some(&model));
        };
        let kind = CallKind::of(&call);
        let has_other = || self.pick(State::Unknown, std::slice::from_ref(&endpoint), &model).is_some();
        if kind != CallKind::Other && has_other() {
            self.send_with_retries(call, kind, endpoint, choice, model).await
        } else {
            send_once(&endpoint, kind, call, &model).await
        }
    }

    /// The response to a call for which there is no endpoint with `model`.
    fn no_endpoint(&self, model: Option<&ModelIdentity>) -> Result<Response<Body>, BoxError> {
        let election = self.election();
        let changed = model.zip(election.served()).filter(|(model, served)| model != served);
        let text = match changed {
            Some((old, new)) => {
                format!("the embedders have {new} now, no longer {old}; the call can be sent again")
            }
            None => election.unusable().ok_or(NoEmbedder)?,
        };
        Ok(Status::from(Error::new(Reason::Unavailable, text).with_retry_after(RETRY_AFTER)).into_http())
    }

    /// Sends a call to an endpoint with this model, and to others if that fails. If the served model changes meanwhile, these have
    /// the new one, where the call allows it.
    async fn send_with_retries(
        &self,
        call: Request<Body>,
        kind: CallKind,
        mut endpoint: Arc<EmbedderEndpoint>,
        choice: ModelChoice,
        mut model: ModelIdentity,
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
            let outcome = send_replayable(&endpoint, kind, head.clone(), &replay, memory, &model).await;
            if let Outcome::EndpointFailed(_) = outcome {
                endpoint.eject();
            }
            let worst = match policy.after_attempt(&endpoint, &outcome) {
                RetryDecision::No => None,
                RetryDecision::Yes(worst) => Some(worst),
                RetryDecision::IfUnreachable(worst) => (!endpoint.is_reachable().await).then_some(worst),
            };
            let next = worst.filter(|_| replay.is_replayable()).and_then(|worst| {
                let next_model = choice.current(self)?;
                next_model.check(choice.required.as_ref()).ok()?;
                let next = self.pick(worst, policy.tried(), &next_model)?;
                deadline::set(&mut head.headers, end).ok()?;
                self.0.retry_budget.withdraw().then_some((next, next_model))
            });
            let Some((next, next_model)) = next else {
                replay.discard();
                if outcome.is_served() {
                    self.0.retry_budget.deposit();
                }
                return outcome.into_result();
            };
            debug!(from = %endpoint.address, to = %next.address, "a call is retried");
            (endpoint, model) = (next, next_model);
        }
    }

    /// Time for a call with its retries: until its deadline, `CALL_TIMEOUT` at most.
    fn timeout(&self, head: &request::Parts) -> Duration {
        let call_timeout = self.0.call_timeout;
        deadline::of(&head.headers).map_or(call_timeout, |left| left.min(call_timeout))
    }
}
