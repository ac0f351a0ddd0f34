//! The cluster: the endpoints of all embedders, and the election of the model that is served.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use muse_proto::Fingerprint;
use muse_server::tls::Connector;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::info;

use super::{
    election::Election,
    endpoint::{Condition, EmbedderEndpoint, State},
    model::ModelIdentity,
};

/// The state that discovery and health checks set, and that the layers of a call read.
#[derive(Debug)]
pub(super) struct Cluster {
    endpoints: RwLock<Arc<[Arc<EmbedderEndpoint>]>>,
    election: Mutex<Election>,
    /// Whether any endpoint with the served model serves.
    serving: watch::Sender<bool>,
    /// Notified when an endpoint fails: its name may have other addresses.
    resolve_requested: Notify,
    connector: Connector,
    shutdown: CancellationToken,
}

impl Cluster {
    /// A cluster without endpoints. With a `pinned` fingerprint it serves that model only.
    pub(super) fn new(
        pinned: Option<Fingerprint>,
        connector: &Connector,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            endpoints: RwLock::new(Arc::new([])),
            election: Mutex::new(Election::new(pinned)),
            serving: watch::Sender::new(false),
            resolve_requested: Notify::new(),
            connector: connector.clone(),
            shutdown,
        }
    }

    /// Whether any endpoint serves that has the served model.
    pub(super) fn serving(&self) -> &watch::Sender<bool> {
        &self.serving
    }

    /// The model that the endpoints of all calls have; none until one is elected.
    pub(super) fn served(&self) -> Option<ModelIdentity> {
        self.election().served().cloned()
    }

    pub(super) fn election(&self) -> MutexGuard<'_, Election> {
        self.election.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn endpoints(&self) -> Arc<[Arc<EmbedderEndpoint>]> {
        Arc::clone(&self.endpoints.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the endpoints: adds new ones, and removes those that were not resolved; their calls in flight continue. Returns the
    /// new ones, whose health checks the caller starts.
    pub(super) fn replace(&self, resolved: &[(SocketAddr, &Endpoint)]) -> Vec<Arc<EmbedderEndpoint>> {
        let old = self.endpoints();
        let mut added = Vec::new();
        let mut new: Vec<Arc<EmbedderEndpoint>> = Vec::with_capacity(resolved.len());
        for (address, target) in resolved {
            let has_address = |endpoint: &&Arc<EmbedderEndpoint>| endpoint.address == *address;
            if new.iter().any(|endpoint| has_address(&endpoint)) {
                continue;
            }
            new.push(old.iter().find(has_address).cloned().unwrap_or_else(|| {
                info!(%address, "an embedder was added");
                let removed = self.shutdown.child_token();
                let endpoint = Arc::new(EmbedderEndpoint::new(*address, target, &self.connector, removed));
                added.push(Arc::clone(&endpoint));
                endpoint
            }));
        }
        for removed in old.iter().filter(|&endpoint| !new.iter().any(|new| Arc::ptr_eq(new, endpoint))) {
            info!(address = %removed.address, "an embedder was removed");
            removed.removed.cancel();
        }
        *self.endpoints.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        self.update();
        added
    }

    /// Elects the served model, and publishes whether any endpoint with it serves. It is called after each change of an endpoint.
    pub(super) fn update(&self) {
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
        self.serving.send_if_modified(|published| std::mem::replace(published, serves) != serves);
    }

    /// Requests that discovery resolves the names soon.
    pub(super) fn request_resolve(&self) {
        self.resolve_requested.notify_one();
    }

    pub(super) async fn resolve_requested(&self) {
        self.resolve_requested.notified().await;
    }
}

#[cfg(test)]
impl Cluster {
    /// A cluster without endpoints that serves this model.
    pub(super) fn for_test(pinned: Option<&str>) -> Self {
        let pinned = pinned.map(|text| text.parse().unwrap());
        Self::new(pinned, &Connector::new(None), CancellationToken::new())
    }

    /// Adds endpoints that accept no connections, without health checks.
    pub(super) fn add_for_test(&self, count: usize) -> Vec<Arc<EmbedderEndpoint>> {
        let target = Endpoint::from_static("http://127.0.0.1:1");
        let addresses = (1..).take(count).map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)));
        self.replace(&addresses.map(|address| (address, &target)).collect::<Vec<_>>())
    }
}
