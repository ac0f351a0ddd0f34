//! Least-loaded picking: the endpoint in the best state with the least load, in turn among equals.
//!
//! This is not tower's `Balance` (power of two choices): that has no states, and at a low load two choices of a few endpoints are
//! often both busier than a third one.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Balancer,
    endpoint::{EmbedderEndpoint, State},
    model::ModelIdentity,
};

impl Balancer {
    /// Another endpoint is picked first among equally loaded ones.
    pub(super) fn next_turn(&self) {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Picks the least loaded endpoint with this model in the best state, no worse than `worst`, that was not `tried`.
    pub(super) fn pick(
        &self,
        worst: State,
        tried: &[Arc<EmbedderEndpoint>],
        model: &ModelIdentity,
    ) -> Option<Arc<EmbedderEndpoint>> {
        let endpoints = self.endpoints();
        let turn = self.0.turn.load(Ordering::Relaxed) % endpoints.len().max(1);
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
