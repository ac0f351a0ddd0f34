//! The election of the served model: a gateway uses the endpoints of one model only.
//!
//! Each endpoint votes for its model. An endpoint that cannot be reached votes for its last known model, so that a crash does not
//! change the vector space; one that has announced its shutdown does not vote, so that a rolling change of the model leads to a new
//! majority. Ties leave the served model.

use std::{collections::BTreeMap, net::SocketAddr};

use muse_proto::Fingerprint;
use tracing::{info, warn};

use super::{
    endpoint::{Condition, State},
    model::ModelIdentity,
};

/// The served model, and the endpoints with other models.
#[derive(Debug)]
pub(super) struct Election {
    /// The model that is served whatever the endpoints vote.
    pinned: Option<ModelIdentity>,
    served: Option<ModelIdentity>,
    /// Endpoints that serve, but have another model.
    unused: Vec<(SocketAddr, ModelIdentity)>,
}

impl Election {
    /// An election that always elects `pinned`, if that is set.
    pub(super) fn new(pinned: Option<Fingerprint>) -> Self {
        let pinned = pinned.map(ModelIdentity::Known);
        Self { served: pinned.clone(), pinned, unused: Vec::new() }
    }

    /// The served model; none until the endpoints have elected one.
    pub(super) fn served(&self) -> Option<&ModelIdentity> {
        self.served.as_ref()
    }

    /// The number of endpoints that serve, but have another model.
    pub(super) fn unused(&self) -> usize {
        self.unused.len()
    }

    /// Elects the served model, and logs each change.
    pub(super) fn update(&mut self, endpoints: &[(SocketAddr, Condition)]) {
        if self.pinned.is_none() {
            let conditions = endpoints.iter().map(|(_, condition)| condition);
            let elected = elect(self.served.as_ref(), conditions);
            match (&self.served, &elected) {
                (Some(old), Some(new)) if old != new => {
                    warn!(former = old.name(), fingerprint = new.name(), "the served fingerprint changes");
                }
                (None, Some(model)) => info!(fingerprint = model.name(), "the served fingerprint is elected"),
                _ => (),
            }
            if elected != self.served {
                self.served = elected;
                // They are logged again: the reason has changed.
                self.unused.clear();
            }
        }
        let Some(served) = &self.served else { return };
        let has_other = |condition: &Condition| {
            let other = condition.model.clone().filter(|model| model != served);
            other.filter(|_| condition.state == State::Serving)
        };
        let unused: Vec<_> = endpoints
            .iter()
            .filter_map(|(address, condition)| Some((*address, has_other(condition)?)))
            .collect();
        for (address, model) in unused.iter().filter(|entry| !self.unused.contains(entry)) {
            let (fingerprint, served) = (model.name(), served.name());
            warn!(%address, fingerprint, served, "an embedder is not used: it has another fingerprint");
        }
        self.unused = unused;
    }

    /// Why no endpoint is usable, if that is because of their models.
    pub(super) fn unusable(&self) -> Option<String> {
        match (&self.pinned, &self.served) {
            (Some(pinned), _) => {
                Some(format!("no embedder with {pinned} serves, which MODEL_FINGERPRINT requires"))
            }
            (None, Some(served)) if !self.unused.is_empty() => {
                Some(format!("no embedder with {served} serves; others have another model, and are not used"))
            }
            _ => None,
        }
    }

    /// The endpoints that are not used, a line for each.
    pub(super) fn unused_endpoints(&self) -> Vec<String> {
        let Some(served) = &self.served else { return Vec::new() };
        let line = |(address, model): &(SocketAddr, ModelIdentity)| {
            format!("the embedder {address} is not used: it has {model}, and {served} is served")
        };
        self.unused.iter().map(line).collect()
    }
}

/// The votes for a model.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    votes: usize,
    /// Whether one of its endpoints serves.
    serves: bool,
}

/// Returns the model to serve, if there are enough votes.
///
/// A model replaces the current one if it has more votes and an endpoint with it serves. The first model is elected when every
/// endpoint has reported its model, or has failed to, or when the others could not change the result; a tie then elects the first
/// in the order of the fingerprints, so that several gateways that start at the same time elect the same one.
fn elect<'a>(
    current: Option<&ModelIdentity>,
    endpoints: impl Iterator<Item = &'a Condition>,
) -> Option<ModelIdentity> {
    let mut tallies: BTreeMap<&ModelIdentity, Tally> = BTreeMap::new();
    let (mut count, mut undecided) = (0, 0);
    for endpoint in endpoints {
        count += 1;
        match &endpoint.model {
            Some(model) if !endpoint.withdrawn => {
                let tally = tallies.entry(model).or_default();
                tally.votes += 1;
                tally.serves |= endpoint.state == State::Serving;
            }
            None if endpoint.state == State::Unknown => undecided += 1,
            Some(_) | None => (),
        }
    }
    // `max_by_key` returns the last maximum.
    let best = tallies.iter().rev().filter(|(_, tally)| tally.serves).max_by_key(|(_, tally)| tally.votes);
    let elected = best.filter(|(_, best)| match current {
        Some(current) => best.votes > tallies.get(current).map_or(0, |tally| tally.votes),
        None => undecided == 0 || best.votes > count / 2,
    });
    elected.map(|(&model, _)| model).or(current).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "f32-00000000000a";
    const B: &str = "f32-00000000000b";
    const C: &str = "bf16-00000000000c";

    fn model(text: &str) -> ModelIdentity {
        text.parse().map_or(ModelIdentity::Unreported, ModelIdentity::Known)
    }

    fn serving(text: &str) -> Condition {
        Condition { state: State::Serving, model: Some(model(text)), withdrawn: false }
    }

    fn crashed(text: &str) -> Condition {
        Condition { state: State::Unavailable, ..serving(text) }
    }

    fn stopping(text: &str) -> Condition {
        Condition { withdrawn: true, ..crashed(text) }
    }

    fn starting() -> Condition {
        Condition { state: State::Unknown, model: None, withdrawn: false }
    }

    fn unreachable() -> Condition {
        Condition { state: State::Unavailable, ..starting() }
    }

    fn elected(current: Option<&str>, endpoints: &[Condition]) -> Option<ModelIdentity> {
        elect(current.map(model).as_ref(), endpoints.iter())
    }

    #[test]
    fn first_model_is_that_of_the_majority() {
        assert_eq!(elected(None, &[]), None);
        assert_eq!(elected(None, &[starting()]), None);
        assert_eq!(elected(None, &[unreachable()]), None);
        assert_eq!(elected(None, &[serving(A)]), Some(model(A)));
        assert_eq!(elected(None, &[serving(A), unreachable()]), Some(model(A)));
        assert_eq!(elected(None, &[serving(B), serving(B), serving(A)]), Some(model(B)));
        // The endpoints that have not reported yet could change the result,
        assert_eq!(elected(None, &[serving(B), starting()]), None);
        assert_eq!(elected(None, &[serving(B), serving(A), starting()]), None);
        // or not.
        assert_eq!(elected(None, &[serving(B), serving(B), starting()]), Some(model(B)));
        // A tie does not depend on the order of the endpoints.
        assert_eq!(elected(None, &[serving(A), serving(B)]), Some(model(A)));
        assert_eq!(elected(None, &[serving(B), serving(A)]), Some(model(A)));
        assert_eq!(elected(None, &[serving("none"), serving(A)]), Some(model(A)));
        assert_eq!(elected(None, &[crashed(A), stopping(B)]), None);
    }

    #[test]
    fn only_a_larger_vote_replaces_the_model() {
        assert_eq!(elected(Some(A), &[serving(A), serving(B)]), Some(model(A)));
        assert_eq!(elected(Some(B), &[serving(A), serving(B)]), Some(model(B)));
        assert_eq!(elected(Some(A), &[serving(A), serving(B), serving(B)]), Some(model(B)));
        assert_eq!(elected(Some(A), &[serving(A), serving(B), serving(C)]), Some(model(A)));
        assert_eq!(elected(Some(A), &[serving("none"), serving("none"), serving(A)]), Some(model("none")));
        assert_eq!(elected(Some(A), &[]), Some(model(A)));
    }

    #[test]
    fn crash_leaves_the_model_and_shutdown_does_not() {
        assert_eq!(elected(Some(A), &[crashed(A), crashed(A), serving(B)]), Some(model(A)));
        assert_eq!(elected(Some(A), &[crashed(A), serving(B)]), Some(model(A)));
        assert_eq!(elected(Some(A), &[crashed(A), stopping(A), serving(B)]), Some(model(A)));
        assert_eq!(elected(Some(A), &[stopping(A), stopping(A), serving(B)]), Some(model(B)));
        // A single embedder that was restarted with another model.
        assert_eq!(elected(Some(A), &[stopping(A)]), Some(model(A)));
        assert_eq!(elected(Some(A), &[serving(B)]), Some(model(B)));
        // A model without an endpoint that serves is not elected, however many votes it has.
        assert_eq!(elected(Some(A), &[serving(A), crashed(B), crashed(B)]), Some(model(A)));
        assert_eq!(elected(Some(A), &[crashed(A), crashed(B), crashed(B)]), Some(model(A)));
    }

    #[test]
    fn rolling_change_replaces_the_model_once() {
        let mut endpoints = vec![serving(A), serving(A), serving(A)];
        let mut current = elected(None, &endpoints).unwrap();
        let mut changes = Vec::new();
        for index in 0..endpoints.len() {
            for next in [stopping(A), unreachable(), starting(), stopping(B), serving(B)] {
                endpoints[index] = next;
                let elected = elect(Some(&current), endpoints.iter()).unwrap();
                if elected != current {
                    changes.push((index, elected.clone()));
                }
                current = elected;
                let usable = endpoints.iter().filter(|endpoint| endpoint.model.as_ref() == Some(&current));
                assert!(usable.filter(|endpoint| endpoint.state == State::Serving).count() > 0);
            }
        }
        // When the second has changed.
        assert_eq!(changes, [(1, model(B))]);
    }

    fn at(port: u16, condition: Condition) -> (SocketAddr, Condition) {
        (SocketAddr::from(([10, 0, 0, 1], port)), condition)
    }

    #[test]
    fn pinned_model_is_never_replaced() {
        let mut election = Election::new(Some(A.parse().unwrap()));
        election.update(&[at(1, serving(B)), at(2, serving(B))]);
        assert_eq!((election.served(), election.unused()), (Some(&model(A)), 2));
        let reason = election.unusable().unwrap();
        assert!(reason.contains("f32-00000000000a") && reason.contains("MODEL_FINGERPRINT"), "{reason}");
        election.update(&[at(1, serving(A))]);
        assert_eq!((election.unused(), election.unused_endpoints()), (0, Vec::new()));
    }

    #[test]
    fn unused_endpoints_are_named() {
        let mut election = Election::new(None);
        election.update(&[at(1, starting())]);
        assert_eq!((election.served(), election.unusable()), (None, None));
        election.update(&[at(1, serving(A)), at(2, serving(A)), at(3, serving(B)), at(4, serving("none"))]);
        assert_eq!(
            election.unused_endpoints(),
            [
                "the embedder 10.0.0.1:3 is not used: it has the fingerprint f32-00000000000b, and the fingerprint \
                 f32-00000000000a is served",
                "the embedder 10.0.0.1:4 is not used: it has no fingerprint (an older release), and the fingerprint \
                 f32-00000000000a is served",
            ]
        );
        election.update(&[at(1, crashed(A)), at(2, crashed(A)), at(3, serving(B))]);
        assert!(
            election.unusable().unwrap().starts_with("no embedder with the fingerprint f32-00000000000a")
        );
        // All are unreachable: it is not for their models.
        election.update(&[at(1, crashed(A)), at(2, crashed(A)), at(3, crashed(B))]);
        assert_eq!(election.unusable(), None);
    }
}
