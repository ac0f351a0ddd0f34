//! Least-loaded picking: the endpoint in the best state with the least load, in turn among equals.
//!
//! This is not tower's `Balance` (power of two choices): that has no states, and at a low load two
//! choices of a few endpoints are often both busier than a third one. `Balance` also picks in
//! `poll_ready`, where it does not know the call.

use std::{
    slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use muse_server::backoff::random;

use super::{
    cluster::Cluster,
    endpoint::{EmbedderEndpoint, State},
    model::ModelIdentity,
};

/// Picks the endpoints of calls.
#[derive(Debug)]
pub(super) struct LeastLoaded {
    cluster: Arc<Cluster>,
    /// The endpoint that is picked first among equally loaded ones, modulo their number.
    turn: AtomicUsize,
}

impl LeastLoaded {
    /// Picks endpoints of this cluster.
    pub(super) fn new(cluster: &Arc<Cluster>) -> Self {
        Self { cluster: Arc::clone(cluster), turn: AtomicUsize::new(random() as usize) }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Picks the endpoint for the first attempt of a call.
    pub(super) fn pick_first(&self, model: &ModelIdentity) -> Option<Arc<EmbedderEndpoint>> {
        // Another endpoint is picked first among equally loaded ones.
        self.turn.fetch_add(1, Ordering::Relaxed);
        // If others serve another model, the caller gets the reason instead of a failed attempt.
        let worst = if self.cluster().election().unused() > 0 { State::Unknown } else { State::Unavailable };
        self.pick(model, worst, &[])
    }

    /// Whether there is another endpoint for a retry.
    pub(super) fn has_other(&self, model: &ModelIdentity, than: &Arc<EmbedderEndpoint>) -> bool {
        self.pick(model, State::Unknown, slice::from_ref(than)).is_some()
    }

    /// Picks the least loaded endpoint with this model in the best state, no worse than `worst`, that was not `tried`.
    pub(super) fn pick(
        &self,
        model: &ModelIdentity,
        worst: State,
        tried: &[Arc<EmbedderEndpoint>],
    ) -> Option<Arc<EmbedderEndpoint>> {
        let endpoints = self.cluster().endpoints();
        let turn = self.turn.load(Ordering::Relaxed) % endpoints.len().max(1);
        let (before, after) = endpoints.split_at(turn);
        after
            .iter()
            .chain(before)
            .filter(|endpoint| !tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)))
            .filter_map(|endpoint| Some((endpoint.state_with(model)?, endpoint)))
            .filter(|(state, _)| *state <= worst)
            .min_by_key(|(state, endpoint)| (*state, endpoint.load.get()))
            .map(|(_, endpoint)| Arc::clone(endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "f32-000000000001";

    fn model(text: &str) -> ModelIdentity {
        ModelIdentity::Known(text.parse().unwrap())
    }

    /// A cluster of endpoints in these states.
    fn balance(states: &[State]) -> (LeastLoaded, Vec<Arc<EmbedderEndpoint>>) {
        let cluster = Arc::new(Cluster::for_test(Some(MODEL)));
        let endpoints = cluster.add_for_test(states.len());
        for (endpoint, &state) in endpoints.iter().zip(states) {
            endpoint.report(state, model(MODEL));
        }
        (LeastLoaded::new(&cluster), endpoints)
    }

    #[tokio::test]
    async fn least_loaded_endpoint_in_the_best_state_is_picked() {
        use State::{Serving, Unavailable, Unknown};
        let (balance, endpoints) = balance(&[Unavailable, Serving, Serving, Unknown]);
        let picked = |worst, tried: &[usize]| {
            let tried: Vec<_> = tried.iter().map(|&index| Arc::clone(&endpoints[index])).collect();
            let picked = balance.pick(&model(MODEL), worst, &tried)?;
            endpoints.iter().position(|endpoint| Arc::ptr_eq(endpoint, &picked))
        };
        let _call = endpoints[1].load.begin(10);
        assert_eq!(picked(Unavailable, &[]), Some(2));
        assert_eq!(picked(Unavailable, &[2]), Some(1));
        assert_eq!(picked(Unavailable, &[1, 2]), Some(3));
        assert_eq!(picked(Serving, &[1, 2]), None);
        assert_eq!(picked(Unavailable, &[1, 2, 3]), Some(0));
        assert_eq!(picked(Unknown, &[1, 2, 3]), None);
        assert!(balance.pick(&model("f32-000000000002"), Unavailable, &[]).is_none());
    }

    #[tokio::test]
    async fn equally_loaded_endpoints_are_picked_in_turn() {
        let (balance, endpoints) = balance(&[State::Serving; 3]);
        let addresses: Vec<_> = (0..6).map(|_| balance.pick_first(&model(MODEL)).unwrap().address).collect();
        for endpoint in &endpoints {
            assert_eq!(addresses.iter().filter(|&&address| address == endpoint.address).count(), 2);
        }
    }
}
