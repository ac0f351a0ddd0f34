//! Retries: a call is sent to another embedder if the first one fails.
//!
//! `Embed`, `Tokenize`, `GetModel` and `GetStatus` are idempotent. They are retried within the caller's deadline and the
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
//! This layer also [picks](super::least_loaded) the endpoint of each attempt. It is not tower's `Retry` around a balancing service:
//! a retry depends on which endpoints were tried, on the state of the others, and on a connection test, and the budget is charged
//! only if there is another endpoint.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use http::{Request, Response, request};
use muse_proto::limits::MAX_REQUEST_BYTES;
use muse_server::deadline;
use tonic::body::Body;
use tower::{BoxError, Layer, Service, ServiceExt};
use tracing::debug;

use super::{
    attempt::{Attempt, AttemptBody, CallKind, CallResult},
    classify::Outcome,
    cluster::Cluster,
    endpoint::EmbedderEndpoint,
    least_loaded::LeastLoaded,
    map_result::{MapResult, MapResultFuture},
    no_endpoint::no_endpoint,
    replay_body::ReplayBody,
    replay_memory::ReplayMemory,
    retry_budget::RetryBudget,
    retry_policy::{RetryDecision, RetryPolicy},
    select_model::SelectedCall,
};

/// Bytes of the replay body of an idempotent call: the largest request of the embedder, and some for its frame.
const IDEMPOTENT_REPLAY_BYTES: usize = MAX_REQUEST_BYTES + 1024;
/// Bytes of the replay body of a stream.
const STREAM_REPLAY_BYTES: usize = 64 << 10;

/// Sends each call to an endpoint, and to others if that fails.
#[derive(Debug, Clone)]
pub(super) struct RetryLayer(Arc<Shared>);

/// What all calls share.
#[derive(Debug)]
struct Shared {
    endpoints: LeastLoaded,
    budget: RetryBudget,
    /// For replay bodies.
    memory: ReplayMemory,
    /// Time for a call until its response begins.
    call_timeout: Duration,
}

impl RetryLayer {
    pub(super) fn new(cluster: &Arc<Cluster>, memory: &ReplayMemory, call_timeout: Duration) -> Self {
        let (endpoints, memory) = (LeastLoaded::new(cluster), memory.clone());
        Self(Arc::new(Shared { endpoints, budget: RetryBudget::new(), memory, call_timeout }))
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { shared: Arc::clone(&self.0), inner }
    }
}

/// The service of a [`RetryLayer`].
#[derive(Debug, Clone)]
pub(super) struct Retry<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Service<SelectedCall> for Retry<S>
where
    S: Service<Attempt, Response = Outcome, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    /// Boxed only for a call that may be retried.
    type Future =
        Either<Ready<CallResult>, Either<MapResultFuture<S::Future, Once>, BoxFuture<'static, CallResult>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, selected: SelectedCall) -> Self::Future {
        let SelectedCall { call, model, .. } = &selected;
        let endpoints = &self.shared.endpoints;
        let Some(endpoint) = endpoints.pick_first(model) else {
            return Either::Left(ready(no_endpoint(endpoints.cluster(), Some(model))));
        };
        let kind = CallKind::of(call);
        Either::Right(if kind != CallKind::Other && endpoints.has_other(model, &endpoint) {
            Either::Right(self.clone().send_with_retries(selected, kind, endpoint).boxed())
        } else {
            let SelectedCall { call, model, .. } = selected;
            let attempt = Attempt { endpoint, model, kind, call: call.map(AttemptBody::Once) };
            Either::Left(MapResultFuture::new(self.inner.call(attempt), Once))
        })
    }
}

/// A call that is sent once.
#[derive(Debug)]
pub(super) struct Once;

impl MapResult<Result<Outcome, BoxError>> for Once {
    type Output = CallResult;

    fn map_result(self, outcome: Result<Outcome, BoxError>) -> CallResult {
        outcome?.into_result()
    }
}

impl<S> Retry<S>
where
    S: Service<Attempt, Response = Outcome, Error = BoxError>,
{
    /// Sends a call to an endpoint with the selected model, and to others if that fails. If the served model changes meanwhile, these
    /// have the new one, where the call allows it.
    async fn send_with_retries(
        self,
        selected: SelectedCall,
        kind: CallKind,
        mut endpoint: Arc<EmbedderEndpoint>,
    ) -> CallResult {
        let SelectedCall { call, mut model, selection } = selected;
        let Self { shared, mut inner } = self;
        let endpoints = &shared.endpoints;
        let (mut head, body) = call.into_parts();
        let end = Instant::now() + shared.timeout(&head);
        let capacity = match kind {
            CallKind::Idempotent => IDEMPOTENT_REPLAY_BYTES,
            CallKind::Stream | CallKind::Other => STREAM_REPLAY_BYTES,
        };
        let replay = ReplayBody::new(body, capacity, shared.memory.reservation());
        let mut policy = RetryPolicy::default();
        loop {
            let call = Request::from_parts(head.clone(), AttemptBody::Replayed(replay.replay()));
            let attempt = Attempt { endpoint: Arc::clone(&endpoint), model, kind, call };
            let outcome = inner.ready().await?.call(attempt).await?;
            let worst = match policy.after_attempt(&endpoint, &outcome) {
                RetryDecision::No => None,
                RetryDecision::Yes(worst) => Some(worst),
                RetryDecision::IfUnreachable(worst) => (!endpoint.is_reachable().await).then_some(worst),
            };
            let next = worst.filter(|_| replay.is_replayable()).and_then(|worst| {
                let next_model = selection.for_retry(endpoints.cluster())?;
                let next = endpoints.pick(&next_model, worst, policy.tried())?;
                deadline::set(&mut head.headers, end).ok()?;
                shared.budget.withdraw().then_some((next, next_model))
            });
            let Some((next, next_model)) = next else {
                replay.discard();
                if outcome.is_served() {
                    shared.budget.deposit();
                }
                return outcome.into_result();
            };
            debug!(from = %endpoint.address, to = %next.address, "a call is retried");
            (endpoint, model) = (next, next_model);
        }
    }
}

impl Shared {
    /// Time for a call with its retries: until its deadline, `CALL_TIMEOUT` at most.
    fn timeout(&self, head: &request::Parts) -> Duration {
        deadline::of(&head.headers).map_or(self.call_timeout, |left| left.min(self.call_timeout))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tower::service_fn;

    use super::*;
    use crate::{endpoint::State, model::ModelIdentity, select_model::ModelSelection};

    const MODEL: &str = "f32-000000000001";

    fn response() -> Response<Body> {
        Response::new(Body::empty())
    }

    /// Sends a call to this method of a number of endpoints, whose attempts have these outcomes. Returns the result, and for each
    /// attempt the port of its endpoint and whether it can be replayed.
    async fn send(
        method: &str,
        endpoints: usize,
        outcomes: Vec<Outcome>,
        timeout: Duration,
    ) -> (CallResult, Vec<(u16, bool)>) {
        let cluster = Arc::new(Cluster::for_test(Some(MODEL)));
        let model = ModelIdentity::Known(MODEL.parse().unwrap());
        for endpoint in cluster.add_for_test(endpoints) {
            endpoint.report(State::Serving, model.clone());
        }
        let attempts = Mutex::new(Vec::new());
        let outcomes = Mutex::new(outcomes.into_iter());
        let shared = Arc::new((attempts, outcomes));
        let inner = service_fn({
            let shared = Arc::clone(&shared);
            move |attempt: Attempt| {
                shared.0.lock().unwrap().push((attempt.endpoint.address.port(), attempt.replay().is_some()));
                ready(Ok(shared.1.lock().unwrap().next().unwrap()))
            }
        });
        let mut call = Request::new(Body::empty());
        *call.uri_mut() = format!("/muse.v1.EmbedderService/{method}").parse().unwrap();
        let selected = SelectedCall { selection: ModelSelection::of(&call).unwrap(), call, model };
        let retry = RetryLayer::new(&cluster, &ReplayMemory::new(1000), timeout).layer(inner);
        let result = retry.oneshot(selected).await;
        let attempts = shared.0.lock().unwrap().clone();
        (result, attempts)
    }

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn failed_call_is_sent_to_each_other_endpoint() {
        let failed = || Outcome::EndpointFailed(Err("reset".into()));
        let outcomes = vec![failed(), failed(), Outcome::Final(Ok(response()))];
        let (result, mut attempts) = send("Embed", 3, outcomes, TIMEOUT).await;
        attempts.sort_unstable();
        assert!(result.is_ok());
        assert_eq!(attempts, [(1, true), (2, true), (3, true)]);
        // The last failure is returned when all were tried,
        let (result, attempts) = send("EmbedStream", 2, vec![failed(), failed()], TIMEOUT).await;
        assert!(result.is_err());
        assert_eq!(attempts.len(), 2);
        // or when no time is left.
        let (result, attempts) = send("Embed", 2, vec![failed()], Duration::ZERO).await;
        assert!(result.is_err());
        assert_eq!(attempts.len(), 1);
    }

    #[tokio::test]
    async fn call_without_alternative_is_sent_once() {
        for (method, endpoints) in [("Embed", 1), ("EmbedStream", 1), ("Unknown", 2)] {
            let outcomes = vec![Outcome::EndpointFailed(Ok(response()))];
            let (result, attempts) = send(method, endpoints, outcomes, TIMEOUT).await;
            assert!(result.is_ok());
            assert!(matches!(attempts[..], [(_, false)]), "{method} {attempts:?}");
        }
    }

    #[tokio::test]
    async fn call_without_endpoint_is_rejected() {
        let (result, attempts) = send("Embed", 0, Vec::new(), TIMEOUT).await;
        let status = tonic::Status::from_header_map(result.unwrap().headers()).unwrap();
        assert!(status.message().contains("no embedder with the fingerprint"), "{status}");
        assert!(attempts.is_empty());
    }
}
