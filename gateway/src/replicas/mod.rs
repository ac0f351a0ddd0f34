//! The embedders behind the gateway: where they are ([`discovery`]), which of them serve ([`health`]), who gets a call, and
//! what happens when one fails ([`call`]).
//!
//! A call goes to the one with the least to do, counted in bytes of the requests in flight. One that cannot be reached,
//! breaks a connection, says UNAVAILABLE or that it does not serve gets no more calls until its health says that it serves.

mod answer;
mod budget;
mod call;
mod discovery;
mod health;
mod held;
mod kept;
mod replica;
mod store;

use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use muse_chassis::resolver::SystemResolver;
use muse_chassis::{backoff::random, metrics::Metrics, tls::Connector};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::info;

use budget::Budget;
pub(crate) use call::ran_out_of_time;
pub use discovery::Resolver;
use replica::{Replica, State};
use store::Store;

/// An embedder that is silent for this long is asked whether it is there,
const PING_AFTER: Duration = Duration::from_secs(3);
/// and without an answer within this its calls go elsewhere.
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// Bytes that are kept of all calls together, so that they can be sent again.
const KEPT_OF_ALL: usize = 64 << 20;

/// The embedders, as one service.
#[derive(Debug, Clone)]
pub(crate) struct Replicas(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    list: RwLock<Arc<[Arc<Replica>]>>,
    /// Whose turn it is among those with as little to do as others.
    turn: AtomicUsize,
    budget: Budget,
    store: Store,
    /// Whether any of them serves.
    serving: watch::Sender<bool>,
    /// Somebody was not found where they were.
    lost: Notify,
    /// How long a call without an answer may take.
    call_timeout: Duration,
    connector: Connector,
    shutdown: CancellationToken,
}

impl Replicas {
    /// Finds the embedders at these URLs, by the resolver, and follows them until `shutdown`.
    pub(crate) fn follow(
        endpoints: &[Endpoint],
        (resolver, connector): (Box<dyn Resolver>, &Connector),
        call_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let replicas = Self(Arc::new(Shared {
            list: RwLock::new(Arc::new([])),
            turn: AtomicUsize::new(random() as usize),
            budget: Budget::new(),
            store: Store::of(KEPT_OF_ALL),
            serving: watch::Sender::new(false),
            lost: Notify::new(),
            call_timeout,
            connector: connector.clone(),
            shutdown: shutdown.clone(),
        }));
        let endpoints = endpoints.iter().cloned().map(|endpoint| {
            endpoint
                .timeout(call_timeout)
                .http2_keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PONG_WITHIN)
        });
        let found = discovery::discover(endpoints.collect(), resolver, replicas.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(found).await });
        replicas
    }

    /// Whether any embedder serves.
    pub(crate) fn serving(&self) -> watch::Receiver<bool> {
        self.0.serving.subscribe()
    }

    /// Adds how many there are to the metrics.
    pub(crate) fn count(&self, metrics: &Metrics) {
        let (known, serving) = (self.clone(), self.clone());
        let name = "muse_embedders_known";
        metrics.asked(name, "Embedders that the gateway has found.", move || known.list().len() as f64);
        let name = "muse_embedders_serving";
        metrics.asked(name, "Those of them that get calls.", move || {
            let list = serving.list();
            list.iter().filter(|replica| replica.state() == State::Serving).count() as f64
        });
    }

    fn list(&self) -> Arc<[Arc<Replica>]> {
        Arc::clone(&self.0.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps those that are wanted, takes in new ones, and lets go of the others; their calls in flight go on.
    fn replace(&self, wanted: &[(SocketAddr, &Endpoint)]) {
        let old = self.list();
        let mut new: Vec<Arc<Replica>> = Vec::with_capacity(wanted.len());
        for (address, endpoint) in wanted {
            let is_it = |replica: &&Arc<Replica>| replica.address == *address;
            if new.iter().any(|replica| is_it(&replica)) {
                continue;
            }
            new.push(old.iter().find(is_it).cloned().unwrap_or_else(|| self.begin(*address, endpoint)));
        }
        for vanished in old.iter().filter(|&replica| !new.iter().any(|kept| Arc::ptr_eq(kept, replica))) {
            info!(address = %vanished.address, "an embedder has gone");
            vanished.gone.cancel();
        }
        *self.0.list.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        self.tell();
    }

    fn begin(&self, address: SocketAddr, endpoint: &Endpoint) -> Arc<Replica> {
        info!(%address, "there is an embedder");
        let gone = self.0.shutdown.child_token();
        let replica = Arc::new(Replica::new(address, (endpoint, &self.0.connector), gone.clone()));
        let following = health::follow(Arc::clone(&replica), self.clone());
        tokio::spawn(async move { gone.run_until_cancelled(following).await });
        replica
    }

    /// Tells those who want to know whether any embedder serves.
    fn tell(&self) {
        let serves = self.list().iter().any(|replica| replica.state() == State::Serving);
        self.0.serving.send_if_modified(|told| std::mem::replace(told, serves) != serves);
    }

    /// Has the names looked up soon.
    fn look_again(&self) {
        self.0.lost.notify_one();
    }

    async fn asked_to_look(&self) {
        self.0.lost.notified().await;
    }

    fn next_turn(&self) {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// The best for the next call that is at least as good as `worst`, and not among those that were tried.
    fn choose(&self, worst: State, tried: &[Arc<Replica>]) -> Option<Arc<Replica>> {
        let list = self.list();
        let turn = self.0.turn.load(Ordering::Relaxed) % list.len().max(1);
        let (before, after) = list.split_at(turn);
        after
            .iter()
            .chain(before)
            .filter(|replica| !tried.iter().any(|tried| Arc::ptr_eq(tried, replica)))
            .map(|replica| (replica.state(), replica))
            .filter(|(state, _)| *state <= worst)
            .min_by_key(|(state, replica)| (*state, replica.load()))
            .map(|(_, replica)| Arc::clone(replica))
    }
}
