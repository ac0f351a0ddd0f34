//! The load balancer of the embedders.
//!
//! A call passes a [stack] of tower layers:
//!
//! | layer of calls | idea |
//! |---|---|
//! | [`fingerprint`] | reports the fingerprint in the response to the sender of the call |
//! | [`select_model`] | selects the model that may serve the call |
//! | [`retry`] | sends the call to the least loaded endpoint, and to another one if that fails |
//!
//! | layer of attempts | idea |
//! |---|---|
//! | [`outlier_ejection`] | ejects an endpoint that fails |
//! | [`error_trailers`] | a gRPC status in place of a response that breaks off |
//! | [`classify`] | the outcome of an attempt: whether another endpoint may serve the call |
//! | [`buffer`] | buffers the response until it is complete |
//! | [`model_check`] | drops the response of another model |
//! | [`track_load`] | counts the attempt as load of its endpoint |
//! | [`connect`] | the connection to the endpoint |
//!
//! | part of the layers | idea |
//! |---|---|
//! | [`attempt`] | the request of the layers of attempts |
//! | [`least_loaded`] | picks the endpoint of an attempt |
//! | [`retry_policy`], [`retry_budget`] | which outcomes are retried, the bound on retries |
//! | [`replay_body`], [`replay_memory`] | the request body of an attempt, the bound on buffered bytes |
//! | [`guarded_body`] | a response body that keeps its connection, or its load, until it is dropped |
//! | [`no_endpoint`] | the response to a call without an endpoint |
//! | [`map_result`] | the future of most layers |
//!
//! The layers read the state of the cluster, which tasks in the background set:
//!
//! | module | idea |
//! |---|---|
//! | [`cluster`] | the endpoints of all embedders |
//! | [`discovery`] | service discovery: URLs and names become addresses |
//! | [`endpoint`], [`load`] | one embedder: connection, state; the weight of its calls in flight |
//! | [`health`] | health checks, which set the state and the model |
//! | [`model`] | the model of an endpoint, by its fingerprint |
//! | [`election`] | the election of the served model |
//!
//! A call goes to the least loaded endpoint, by the bytes of the requests in flight. An endpoint that cannot be reached, breaks a
//! connection or returns UNAVAILABLE is ejected (outlier ejection), and one that reports not serving gets no calls either, until
//! its health check reports that it serves. All calls go to endpoints with the same model.

#![forbid(unsafe_code)]

mod attempt;
mod buffer;
mod classify;
mod cluster;
mod connect;
mod discovery;
mod election;
mod endpoint;
mod error_trailers;
mod fingerprint;
mod guarded_body;
mod health;
mod least_loaded;
mod load;
mod map_result;
mod model;
mod model_check;
mod no_endpoint;
mod outlier_ejection;
mod replay_body;
mod replay_memory;
mod retry;
mod retry_budget;
mod retry_policy;
mod select_model;
mod stack;
mod track_load;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use muse_proto::{Error, Fingerprint};
pub use muse_server::resolver::SystemResolver;
use muse_server::tls::Connector;
use muse_telemetry::{metrics::Metrics, request_telemetry::TracedClient};
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{BoxError, Service, ServiceExt, util::Oneshot};

pub use classify::is_timeout;
use cluster::Cluster;
pub use discovery::Resolver;
use endpoint::{EmbedderEndpoint, State};
pub use fingerprint::ResponseFingerprint;
pub use model::ModelIdentity;
use stack::{Stack, stack};

/// Time without traffic from an embedder after which HTTP/2 sends it a ping,
const PING_AFTER: Duration = Duration::from_secs(3);
/// and time for its acknowledgement, after which the connection is closed and its calls are retried elsewhere.
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// The embedders, as one service.
#[derive(Debug, Clone)]
pub struct Balancer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cluster: Arc<Cluster>,
    stack: Stack,
}

/// Numbers of embedders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedderCounts {
    /// Embedders that were resolved.
    pub known: usize,
    /// Resolved embedders that get calls.
    pub serving: usize,
    /// Resolved embedders that serve, but get no calls, because they have another model.
    pub unused: usize,
}

/// An embedder that serves, for calls to it alone.
#[derive(Debug)]
pub struct ServingEmbedder {
    /// Its connection. Calls over it are not balanced, nor do they count as load.
    pub channel: TracedClient<Channel>,
    /// Its fingerprint; none if it is of a release that reports none.
    pub fingerprint: Option<Fingerprint>,
    /// Whether it gets calls: it has the served model.
    pub used: bool,
}

impl Balancer {
    /// Resolves the embedders at these URLs and checks their health until `shutdown`. With a `pinned` fingerprint it uses only
    /// embedders that have it.
    #[must_use]
    pub fn follow(
        targets: &[Endpoint],
        resolver: Box<dyn Resolver>,
        connector: &Connector,
        pinned: Option<Fingerprint>,
        call_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let cluster = Arc::new(Cluster::new(pinned, connector, shutdown.clone()));
        let targets = targets.iter().cloned().map(|target| {
            target.timeout(call_timeout).http2_keep_alive_interval(PING_AFTER).keep_alive_timeout(PONG_WITHIN)
        });
        let discovery = discovery::discover(targets.collect(), resolver, Arc::clone(&cluster));
        tokio::spawn(async move { shutdown.run_until_cancelled(discovery).await });
        let stack = stack(&cluster, call_timeout);
        Self(Arc::new(Shared { cluster, stack }))
    }

    /// Whether any embedder serves that has the served model.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.0.cluster.serving().subscribe()
    }

    /// The numbers of known and serving embedders.
    #[must_use]
    pub fn counts(&self) -> EmbedderCounts {
        let serving = self.serving_embedders();
        let used = serving.iter().filter(|embedder| embedder.used).count();
        let known = self.0.cluster.endpoints().len();
        EmbedderCounts { known, serving: used, unused: serving.len() - used }
    }

    /// The embedders that serve, also those with another model than the served one.
    #[must_use]
    pub fn serving_embedders(&self) -> Vec<ServingEmbedder> {
        let served = self.served();
        let embedder = |endpoint: &Arc<EmbedderEndpoint>| {
            let condition = endpoint.condition();
            let model = condition.model.filter(|_| condition.state == State::Serving)?;
            let (channel, used) = (endpoint.channel.clone(), served.as_ref() == Some(&model));
            Some(ServingEmbedder { channel, fingerprint: model.fingerprint().cloned(), used })
        };
        self.0.cluster.endpoints().iter().filter_map(embedder).collect()
    }

    /// The model that the embedders of all calls have; none until one is elected.
    #[must_use]
    pub fn served(&self) -> Option<ModelIdentity> {
        self.0.cluster.served()
    }

    /// Checks the fingerprint that the headers of a call require.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`](muse_proto::Reason) if the header is malformed, and
    /// [`Reason::FingerprintMismatch`](muse_proto::Reason) if the served model has another one.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let required = Fingerprint::required(headers)?;
        self.0.cluster.election().served().map_or(Ok(()), |served| served.check(required.as_ref()))
    }

    /// For operators: which embedders are not used because of their model, and whether no embedder is usable for that reason.
    #[must_use]
    pub fn explanation(&self) -> Vec<String> {
        let usable = *self.0.cluster.serving().borrow();
        let election = self.0.cluster.election();
        let reason = if usable { None } else { election.unusable() };
        reason.into_iter().chain(election.unused_endpoints()).collect()
    }

    /// Registers the metrics of known and serving embedders.
    pub fn register_metrics(&self, metrics: &Metrics) {
        let (known, serving, unused) = (self.clone(), self.clone(), self.clone());
        let name = "muse_embedders_known";
        metrics.pulled_gauge(name, "Embedders that the gateway has resolved.", move || {
            known.counts().known as f64
        });
        let name = "muse_embedders_serving";
        metrics.pulled_gauge(name, "Resolved embedders that get calls.", move || {
            serving.counts().serving as f64
        });
        let name = "muse_embedders_unused";
        let help = "Embedders that serve, but get no calls: their fingerprint is not the one that the gateway serves.";
        metrics.pulled_gauge(name, help, move || unused.0.cluster.election().unused() as f64);
    }
}

impl Service<Request<Body>> for Balancer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<Body>) -> ResponseFuture {
        ResponseFuture { response: self.0.stack.clone().oneshot(call) }
    }
}

pin_project! {
    /// The response to a call.
    pub struct ResponseFuture {
        #[pin]
        response: Oneshot<Stack, Request<Body>>,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().response.poll(context)
    }
}
