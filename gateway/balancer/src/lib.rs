//! The load balancer of the embedders.
//!
//! | module | idea |
//! |---|---|
//! | [`discovery`] | service discovery: URLs and names become addresses |
//! | [`endpoint`] | one embedder: connection, state, ejection |
//! | [`health`] | health checks, which set the state |
//! | [`load`] | the weight of the calls in flight of an endpoint |
//! | [`pick`] | least-loaded picking |
//! | [`attempt`] | one call to one endpoint |
//! | [`retry`], [`retry_policy`], [`retry_budget`] | the retry loop, the classification of outcomes, the bound on retries |
//! | [`replay_body`], [`buffered_body`], [`tracked_body`] | the bodies of requests and responses |
//! | [`replay_memory`] | the bound on buffered bytes |
//!
//! A call goes to the least loaded endpoint, by the bytes of the requests in flight. An endpoint that cannot be reached, breaks a
//! connection or returns UNAVAILABLE is ejected (outlier ejection), and one that reports not serving gets no calls either, until
//! its health check reports that it serves.

#![forbid(unsafe_code)]

mod attempt;
mod buffered_body;
mod discovery;
mod endpoint;
mod health;
mod load;
mod pick;
mod replay_body;
mod replay_memory;
mod retry;
mod retry_budget;
mod retry_policy;
mod tracked_body;

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicUsize},
    time::Duration,
};

pub use muse_server::resolver::SystemResolver;
use muse_server::{backoff::random, tls::Connector};
use muse_telemetry::{metrics::Metrics, request_telemetry::TracedClient};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::info;

pub use discovery::Resolver;
use endpoint::{EmbedderEndpoint, State};
use replay_memory::ReplayMemory;
use retry_budget::RetryBudget;
pub use retry_policy::is_timeout;

/// Time without traffic from an embedder after which HTTP/2 sends it a ping,
const PING_AFTER: Duration = Duration::from_secs(3);
/// and time for its acknowledgement, after which the connection is closed and its calls are retried elsewhere.
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of the replay bodies of all calls.
const REPLAY_BYTES: usize = 64 << 20;

/// The embedders, as one service.
#[derive(Debug, Clone)]
pub struct Balancer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoints: RwLock<Arc<[Arc<EmbedderEndpoint>]>>,
    /// The endpoint that is picked first among equally loaded ones, modulo their number.
    turn: AtomicUsize,
    retry_budget: RetryBudget,
    replay_memory: ReplayMemory,
    /// Whether any endpoint serves.
    serving: watch::Sender<bool>,
    /// Notified when an endpoint fails: its name may have other addresses.
    resolve_requested: Notify,
    /// Time for a call until its response begins.
    call_timeout: Duration,
    connector: Connector,
    shutdown: CancellationToken,
}

/// Numbers of embedders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedderCounts {
    /// Embedders that were resolved.
    pub known: usize,
    /// Resolved embedders that get calls.
    pub serving: usize,
}

impl Balancer {
    /// Resolves the embedders at these URLs and checks their health until `shutdown`.
    #[must_use]
    pub fn follow(
        targets: &[Endpoint],
        resolver: Box<dyn Resolver>,
        connector: &Connector,
        call_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let balancer = Self(Arc::new(Shared {
            endpoints: RwLock::new(Arc::new([])),
            turn: AtomicUsize::new(random() as usize),
            retry_budget: RetryBudget::new(),
            replay_memory: ReplayMemory::new(REPLAY_BYTES),
            serving: watch::Sender::new(false),
            resolve_requested: Notify::new(),
            call_timeout,
            connector: connector.clone(),
            shutdown: shutdown.clone(),
        }));
        let targets = targets.iter().cloned().map(|target| {
            target.timeout(call_timeout).http2_keep_alive_interval(PING_AFTER).keep_alive_timeout(PONG_WITHIN)
        });
        let discovery = discovery::discover(targets.collect(), resolver, balancer.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(discovery).await });
        balancer
    }

    /// Whether any embedder serves.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.0.serving.subscribe()
    }

    /// The numbers of known and serving embedders.
    #[must_use]
    pub fn counts(&self) -> EmbedderCounts {
        let endpoints = self.endpoints();
        let serving = endpoints.iter().filter(|endpoint| endpoint.state() == State::Serving).count();
        EmbedderCounts { known: endpoints.len(), serving }
    }

    /// The connections to the embedders that serve, for calls to each of them. Such calls are not balanced, nor do they count as load.
    #[must_use]
    pub fn serving_channels(&self) -> Vec<TracedClient<Channel>> {
        let endpoints = self.endpoints();
        let serving = endpoints.iter().filter(|endpoint| endpoint.state() == State::Serving);
        serving.map(|endpoint| endpoint.channel.clone()).collect()
    }

    /// Registers the metrics of known and serving embedders.
    pub fn register_metrics(&self, metrics: &Metrics) {
        let (known, serving) = (self.clone(), self.clone());
        let name = "muse_embedders_known";
        metrics.pulled_gauge(name, "Embedders that the gateway has resolved.", move || {
            known.counts().known as f64
        });
        let name = "muse_embedders_serving";
        metrics.pulled_gauge(name, "Resolved embedders that get calls.", move || {
            serving.counts().serving as f64
        });
    }

    fn endpoints(&self) -> Arc<[Arc<EmbedderEndpoint>]> {
        Arc::clone(&self.0.endpoints.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the endpoints: adds new ones, and removes those that were not resolved; their calls in flight continue.
    fn replace(&self, resolved: &[(SocketAddr, &Endpoint)]) {
        let old = self.endpoints();
        let mut new: Vec<Arc<EmbedderEndpoint>> = Vec::with_capacity(resolved.len());
        for (address, target) in resolved {
            let has_address = |endpoint: &&Arc<EmbedderEndpoint>| endpoint.address == *address;
            if new.iter().any(|endpoint| has_address(&endpoint)) {
                continue;
            }
            new.push(old.iter().find(has_address).cloned().unwrap_or_else(|| self.add(*address, target)));
        }
        for removed in old.iter().filter(|&endpoint| !new.iter().any(|new| Arc::ptr_eq(new, endpoint))) {
            info!(address = %removed.address, "an embedder was removed");
            removed.removed.cancel();
        }
        *self.0.endpoints.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        self.publish_serving();
    }

    fn add(&self, address: SocketAddr, target: &Endpoint) -> Arc<EmbedderEndpoint> {
        info!(%address, "an embedder was added");
        let removed = self.0.shutdown.child_token();
        let endpoint = Arc::new(EmbedderEndpoint::new(address, target, &self.0.connector, removed.clone()));
        let health_checks = health::watch(Arc::clone(&endpoint), self.clone());
        tokio::spawn(async move { removed.run_until_cancelled(health_checks).await });
        endpoint
    }

    /// Publishes whether any embedder serves.
    fn publish_serving(&self) {
        let serves = self.endpoints().iter().any(|endpoint| endpoint.state() == State::Serving);
        self.0.serving.send_if_modified(|published| std::mem::replace(published, serves) != serves);
    }

    /// Requests that discovery resolves the names soon.
    fn request_resolve(&self) {
        self.0.resolve_requested.notify_one();
    }

    async fn resolve_requested(&self) {
        self.0.resolve_requested.notified().await;
    }
}
