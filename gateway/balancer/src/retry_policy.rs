//! Retry policy: which failures and rejections are retried, and on which endpoints.

use std::sync::Arc;

use super::{
    classify::{Outcome, broke_connection},
    endpoint::{EmbedderEndpoint, State},
};

/// Endpoints that a call is sent to at most.
const MAX_ATTEMPTS: usize = 3;

/// Whether a call is sent to another endpoint, whose state is no worse than the given one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryDecision {
    No,
    Yes(State),
    /// Only if the endpoint accepts no connections any more.
    IfUnreachable(State),
}

/// The retry policy of one call, with its attempts so far.
#[derive(Debug, Default)]
pub(super) struct RetryPolicy {
    tried: Vec<Arc<EmbedderEndpoint>>,
    was_rejected: bool,
    broke_connection: bool,
}

impl RetryPolicy {
    /// Records an attempt, and decides whether there is another one.
    pub(super) fn after_attempt(
        &mut self,
        endpoint: &Arc<EmbedderEndpoint>,
        outcome: &Outcome,
    ) -> RetryDecision {
        self.tried.push(Arc::clone(endpoint));
        let decision = match outcome {
            Outcome::Final(_) => RetryDecision::No,
            Outcome::EndpointFailed(Err(failure)) if broke_connection(&**failure) => {
                once(&mut self.broke_connection, RetryDecision::IfUnreachable(State::Unknown))
            }
            Outcome::EndpointFailed(_) => RetryDecision::Yes(State::Unknown),
            Outcome::Rejected(_) => once(&mut self.was_rejected, RetryDecision::Yes(State::Serving)),
        };
        if self.tried.len() < MAX_ATTEMPTS { decision } else { RetryDecision::No }
    }

    /// The endpoints that the call was sent to.
    pub(super) fn tried(&self) -> &[Arc<EmbedderEndpoint>] {
        &self.tried
    }
}

/// The decision if it is the first one with this flag.
fn once(flag: &mut bool, decision: RetryDecision) -> RetryDecision {
    if std::mem::replace(flag, true) { RetryDecision::No } else { decision }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tonic::body::Body;

    use super::*;
    use crate::cluster::Cluster;

    fn response() -> Response<Body> {
        Response::new(Body::empty())
    }

    #[tokio::test]
    async fn rejections_are_retried_once_and_failures_twice() {
        let endpoint = Cluster::for_test(None).add_for_test(1).remove(0);
        let decisions = |outcomes: &[fn() -> Outcome]| -> Vec<_> {
            let mut policy = RetryPolicy::default();
            outcomes.iter().map(|outcome| policy.after_attempt(&endpoint, &outcome())).collect()
        };
        let served: fn() -> Outcome = || Outcome::Final(Ok(response()));
        let rejected: fn() -> Outcome = || Outcome::Rejected(response());
        let unavailable: fn() -> Outcome = || Outcome::EndpointFailed(Ok(response()));
        let aborted: fn() -> Outcome = || Outcome::Final(Err("x".into()));
        let (no, again) = (RetryDecision::No, RetryDecision::Yes(State::Unknown));
        assert_eq!(decisions(&[served]), [no]);
        assert_eq!(decisions(&[aborted]), [no]);
        assert_eq!(decisions(&[rejected, rejected]), [RetryDecision::Yes(State::Serving), no]);
        assert_eq!(decisions(&[unavailable, unavailable, unavailable]), [again, again, no]);
    }
}
