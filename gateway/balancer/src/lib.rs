//! The load balancer of the embedders.
//!
//! | module | idea |
//! |---|---|
//! | [`discovery`] | service discovery: URLs and names become addresses |
//! | [`endpoint`] | one embedder: connection, state, ejection |
//! | [`health`] | health checks, which set the state and the model |
//! | [`model`] | the model of an endpoint, by its fingerprint |
//! | [`election`] | the election of the served model |
//! | [`load`] | the weight of the calls in flight of an endpoint |
//! | [`pick`] | least-loaded picking |
//! | [`attempt`] | one call to one endpoint |
//! | [`retry`], [`retry_policy`], [`retry_budget`] | the retry loop, the classification of outcomes, the bound on retries |
//! | [`replay_body`], [`buffered_body`], [`tracked_body`] | the bodies of requests and responses |
//! | [`replay_memory`] | the bound on buffered bytes |
//!
//! A call goes to the least loaded endpoint, by the bytes of the requests in flight. An endpoint that cannot be reached, breaks a
//! connection or returns UNAVAILABLE is ejected (outlier ejection), and one that reports not serving gets no calls either, until
//! its health check reports that it serves. All calls go to endpoints with the same model.

#![forbid(unsafe_code)]

mod attempt;
mod buffered_body;
mod discovery;
mod election;
mod endpoint;
mod health;
mod load;
mod model;
mod pick;
mod replay_body;
mod replay_memory;
mod retry;
mod retry_budget;
mod retry_policy;
mod tracked_body;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicUsize},
    time::Duration,
};

use http::HeaderMap;
use muse_proto::{Error, Fingerprint};
pub use muse_server::resolver::SystemResolver;
use muse_server::{backoff::random, tls::Connector};
use muse_telemetry::{metrics::Metrics, request_telemetry::TracedClient};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::info;

pub use discovery::Resolver;
use election::Election;
use endpoint::{Condition, EmbedderEndpoint, State};
pub use model::{ModelIdentity, ResponseFingerprint};
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
    election: Mutex<Election>,
    /// The endpoint that is picked first among equally loaded ones, modulo their number.
    turn: AtomicUsize,
    retry_budget: RetryBudget,
    replay_memory: ReplayMemory,
    /// Whether any endpoint with the served model serves.
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
        let balancer = Self(Arc::new(Shared {
            endpoints: RwLock::new(Arc::new([])),
            election: Mutex::new(Election::new(pinned)),
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

    /// Whether any embedder serves that has the served model.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.0.serving.subscribe()
    }

    /// The numbers of known and serving embedders.
    #[must_use]
    pub fn counts(&self) -> EmbedderCounts {
        let serving = self.serving_embedders();
        let used = serving.iter().filter(|embedder| embedder.used).count();
        EmbedderCounts { known: self.endpoints().len(), serving: used, unused: serving.len() - used }
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
        self.endpoints().iter().filter_map(embedder).collect()
    }

    /// The model that the embedders of all calls have; none until one is elected.
    #[must_use]
    pub fn served(&self) -> Option<ModelIdentity> {
        self.election().served().cloned()
    }

    /// Checks the fingerprint that the headers of a call require.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`](muse_proto::Reason) if the header is malformed, and
    /// [`Reason::FingerprintMismatch`](muse_proto::Reason) if the served model has another one.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let required = Fingerprint::required(headers)?;
        self.election().served().map_or(Ok(()), |served| served.check(required.as_ref()))
    }

    /// For operators: which embedders are not used because of their model, and whether no embedder is usable for that reason.
    #[must_use]
    pub fn explanation(&self) -> Vec<String> {
        let usable = *self.0.serving.borrow();
        let election = self.election();
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
        metrics.pulled_gauge(name, help, move || unused.election().unused() as f64);
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
        self.update();
    }

    fn add(&self, address: SocketAddr, target: &Endpoint) -> Arc<EmbedderEndpoint> {
        info!(%address, "an embedder was added");
        let removed = self.0.shutdown.child_token();
        let endpoint = Arc::new(EmbedderEndpoint::new(address, target, &self.0.connector, removed.clone()));
        let health_checks = health::watch(Arc::clone(&endpoint), self.clone());
        tokio::spawn(async move { removed.run_until_cancelled(health_checks).await });
        endpoint
    }

    /// Elects the served model, and publishes whether any endpoint with it serves. It is called after each change of an endpoint.
    fn update(&self) {
        let mut election = self.election();
        // Read after the lock, so that the last update is that of the last change.
        let endpoints = self.endpoints();
        let conditions: Vec<_> =
            endpoints.iter().map(|endpoint| (endpoint.address, endpoint.condition())).collect();
        election.update(&conditions);
        let is_usable = |(_, condition): &(SocketAddr, Condition)| {
            condition.state == State::Serving && condition.model.as_ref() == election.served()
        };
        let serves = conditions.iter().any(is_usable);
        self.0.serving.send_if_modified(|published| std::mem::replace(published, serves) != serves);
    }

    fn election(&self) -> MutexGuard<'_, Election> {
        self.0.election.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that discovery resolves the names soon.
    fn request_resolve(&self) {
        self.0.resolve_requested.notify_one();
    }

    async fn resolve_requested(&self) {
        self.0.resolve_requested.notified().await;
    }
}
