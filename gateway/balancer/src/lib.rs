//! The load balancer of the embedders: service discovery ([`discovery`]), health checks ([`health`]), least-loaded picking, and
//! retries ([`retry`]).
//!
//! A call goes to the least loaded endpoint, by the bytes of the requests in flight. An endpoint that cannot be reached, breaks a
//! connection or returns UNAVAILABLE is ejected (outlier ejection), and one that reports not serving gets no calls either, until
//! its health check reports that it serves.

#![forbid(unsafe_code)]

mod buffered_body;
mod discovery;
mod endpoint;
mod health;
mod replay_body;
mod replay_memory;
mod retry;
mod retry_budget;
mod tracked_body;

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use muse_server::resolver::SystemResolver;
use muse_server::{backoff::random, tls::Connector};
use muse_telemetry::metrics::Metrics;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::info;

pub use discovery::Resolver;
use endpoint::{EmbedderEndpoint, State};
use replay_memory::ReplayMemory;
pub use retry::ran_out_of_time;
use retry_budget::RetryBudget;

/// Time without traffic from an embedder after which HTTP/2 sends it a ping,
const PING_AFTER: Duration = Duration::from_secs(3);
/// and time for the response, after which the connection is closed and its calls are retried elsewhere.
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of the replay bodies of all calls.
const REPLAY_BYTES: usize = 64 << 20;

/// The embedders, as one service.
#[derive(Debug, Clone)]
pub struct Balancer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    list: RwLock<Arc<[Arc<EmbedderEndpoint>]>>,
    /// The endpoint that is picked first among equally loaded ones, modulo their number.
    turn: AtomicUsize,
    budget: RetryBudget,
    store: ReplayMemory,
    /// Whether any of them serves.
    serving: watch::Sender<bool>,
    /// An endpoint was not reachable at its address.
    lost: Notify,
    /// Time for a call until its response begins.
    call_timeout: Duration,
    connector: Connector,
    shutdown: CancellationToken,
}

impl Balancer {
    /// Resolves the embedders at these URLs and checks their health until `shutdown`.
    #[must_use]
    pub fn follow(
        targets: &[Endpoint],
        (resolver, connector): (Box<dyn Resolver>, &Connector),
        call_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let balancer = Self(Arc::new(Shared {
            list: RwLock::new(Arc::new([])),
            turn: AtomicUsize::new(random() as usize),
            budget: RetryBudget::new(),
            store: ReplayMemory::of(REPLAY_BYTES),
            serving: watch::Sender::new(false),
            lost: Notify::new(),
            call_timeout,
            connector: connector.clone(),
            shutdown: shutdown.clone(),
        }));
        let targets = targets.iter().cloned().map(|target| {
            target.timeout(call_timeout).http2_keep_alive_interval(PING_AFTER).keep_alive_timeout(PONG_WITHIN)
        });
        let found = discovery::discover(targets.collect(), resolver, balancer.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(found).await });
        balancer
    }

    /// Whether any embedder serves.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.0.serving.subscribe()
    }

    /// Registers the metrics of known and serving embedders.
    pub fn register_metrics(&self, metrics: &Metrics) {
        let (known, serving) = (self.clone(), self.clone());
        let name = "muse_embedders_known";
        metrics.pulled_gauge(name, "Embedders that the gateway has resolved.", move || {
            known.list().len() as f64
        });
        let name = "muse_embedders_serving";
        metrics.pulled_gauge(name, "Resolved embedders that get calls.", move || {
            let list = serving.list();
            list.iter().filter(|endpoint| endpoint.state() == State::Serving).count() as f64
        });
    }

    fn list(&self) -> Arc<[Arc<EmbedderEndpoint>]> {
        Arc::clone(&self.0.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the endpoints: adds new ones, and removes those that were not resolved; their calls in flight continue.
    fn replace(&self, wanted: &[(SocketAddr, &Endpoint)]) {
        let old = self.list();
        let mut new: Vec<Arc<EmbedderEndpoint>> = Vec::with_capacity(wanted.len());
        for (address, target) in wanted {
            let is_it = |endpoint: &&Arc<EmbedderEndpoint>| endpoint.address == *address;
            if new.iter().any(|endpoint| is_it(&endpoint)) {
                continue;
            }
            new.push(old.iter().find(is_it).cloned().unwrap_or_else(|| self.begin(*address, target)));
        }
        for vanished in old.iter().filter(|&endpoint| !new.iter().any(|kept| Arc::ptr_eq(kept, endpoint))) {
            info!(address = %vanished.address, "an embedder was removed");
            vanished.gone.cancel();
        }
        *self.0.list.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        self.publish_serving();
    }

    fn begin(&self, address: SocketAddr, target: &Endpoint) -> Arc<EmbedderEndpoint> {
        info!(%address, "an embedder was added");
        let gone = self.0.shutdown.child_token();
        let endpoint = Arc::new(EmbedderEndpoint::new(address, (target, &self.0.connector), gone.clone()));
        let following = health::follow(Arc::clone(&endpoint), self.clone());
        tokio::spawn(async move { gone.run_until_cancelled(following).await });
        endpoint
    }

    /// Publishes whether any embedder serves.
    fn publish_serving(&self) {
        let serves = self.list().iter().any(|endpoint| endpoint.state() == State::Serving);
        self.0.serving.send_if_modified(|told| std::mem::replace(told, serves) != serves);
    }

    /// Requests that the names are resolved soon.
    fn request_resolve(&self) {
        self.0.lost.notify_one();
    }

    async fn resolve_requested(&self) {
        self.0.lost.notified().await;
    }

    fn next_turn(&self) {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Picks the least loaded endpoint in the best state, no worse than `worst`, that was not `tried`.
    fn choose(&self, worst: State, tried: &[Arc<EmbedderEndpoint>]) -> Option<Arc<EmbedderEndpoint>> {
        let list = self.list();
        let turn = self.0.turn.load(Ordering::Relaxed) % list.len().max(1);
        let (before, after) = list.split_at(turn);
        after
            .iter()
            .chain(before)
            .filter(|endpoint| !tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)))
            .map(|endpoint| (endpoint.state(), endpoint))
            .filter(|(state, _)| *state <= worst)
            .min_by_key(|(state, endpoint)| (*state, endpoint.load()))
            .map(|(_, endpoint)| Arc::clone(endpoint))
    }
}
