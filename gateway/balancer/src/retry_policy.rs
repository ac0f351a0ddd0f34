//! Retry policy: which failures and rejections are retried, and on which endpoints.

use std::{error::Error as StdError, sync::Arc};

use http::Response;
use muse_proto::{Error, Reason};
use tonic::{Code, Status, TimeoutExpired, body::Body};
use tower::BoxError;

use super::endpoint::{EmbedderEndpoint, State};

/// Endpoints that a call is sent to at most.
const MAX_ATTEMPTS: usize = 3;

/// The outcome of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A response, or an error that another endpoint would return, too.
    Final(Result<Response<Body>, BoxError>),
    /// The endpoint failed: another one may serve the call.
    EndpointFailed(Result<Response<Body>, BoxError>),
    /// The endpoint rejected the call with OVERLOADED.
    Rejected(Response<Body>),
}

impl Outcome {
    /// Whether the endpoint served the call: the response may still be an error of the caller.
    pub(super) fn is_served(&self) -> bool {
        matches!(self, Self::Final(Ok(_)))
    }

    pub(super) fn into_result(self) -> Result<Response<Body>, BoxError> {
        match self {
            Self::Final(result) | Self::EndpointFailed(result) => result,
            Self::Rejected(response) => Ok(response),
        }
    }
}

/// Classifies an attempt without a complete response; `aborted` is whether the caller broke off the request.
pub(super) fn classify_failure(failure: BoxError, aborted: bool) -> Outcome {
    if aborted || is_timeout(&*failure) || violates_protocol(&*failure) {
        Outcome::Final(Err(failure))
    } else {
        Outcome::EndpointFailed(Err(failure))
    }
}

/// Classifies a response by its status, if that is known.
pub(super) fn classify_response(response: Response<Body>, status: Option<Status>) -> Outcome {
    match status {
        Some(status) if status.code() == Code::Unavailable => Outcome::EndpointFailed(Ok(response)),
        Some(status) if is_overloaded(&status) => Outcome::Rejected(response),
        _ => Outcome::Final(Ok(response)),
    }
}

fn is_overloaded(status: &Status) -> bool {
    // Details take a while to decode, and most calls succeed.
    status.code() == Code::ResourceExhausted && Error::from(status).reason() == Reason::Overloaded
}

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

/// The error and its causes.
fn causes<'a>(failure: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(failure), |&failure| failure.source())
}

/// Whether an established connection broke, other than by a timeout.
fn broke_connection(failure: &(dyn StdError + 'static)) -> bool {
    causes(failure)
        .filter_map(<dyn StdError>::downcast_ref::<hyper::Error>)
        .any(|failure| !failure.is_timeout())
}

/// Whether one side reports a violation of HTTP/2. This call may have caused it, so it is not retried.
fn violates_protocol(failure: &(dyn StdError + 'static)) -> bool {
    let not_a_violation = [h2::Reason::NO_ERROR, h2::Reason::REFUSED_STREAM, h2::Reason::CANCEL];
    causes(failure)
        .filter_map(<dyn StdError>::downcast_ref::<h2::Error>)
        .filter_map(h2::Error::reason)
        .any(|reason| !not_a_violation.contains(&reason))
}

/// Whether the failure is a timeout.
#[must_use]
pub fn is_timeout(failure: &(dyn StdError + 'static)) -> bool {
    causes(failure).any(<dyn StdError>::is::<TimeoutExpired>)
}

#[cfg(test)]
mod tests {
    use muse_server::tls::Connector;
    use tokio_util::sync::CancellationToken;
    use tonic::transport::Endpoint;

    use super::*;

    fn response(error: Option<Error>) -> Outcome {
        let status = error.map_or_else(|| Status::ok(""), Status::from);
        classify_response(Response::new(Body::default()), Some(status))
    }

    #[tokio::test]
    async fn rejections_are_retried_once_and_failures_twice() {
        let target = Endpoint::from_static("http://127.0.0.1:1");
        let address = "127.0.0.1:1".parse().unwrap();
        let connector = Connector::new(None);
        let endpoint = EmbedderEndpoint::new(address, &target, &connector, CancellationToken::new());
        let endpoint = Arc::new(endpoint);
        let decisions = |outcomes: &[fn() -> Outcome]| -> Vec<_> {
            let mut policy = RetryPolicy::default();
            outcomes.iter().map(|outcome| policy.after_attempt(&endpoint, &outcome())).collect()
        };
        let served: fn() -> Outcome = || response(None);
        let rejected: fn() -> Outcome = || response(Some(Error::new(Reason::Overloaded, "x")));
        let unavailable: fn() -> Outcome = || response(Some(Error::new(Reason::Unavailable, "x")));
        // Every endpoint would reject it.
        let exhausted: fn() -> Outcome = || response(Some(Error::new(Reason::QuotaExhausted, "x")));
        let aborted: fn() -> Outcome = || classify_failure("x".into(), true);
        let (no, again) = (RetryDecision::No, RetryDecision::Yes(State::Unknown));
        assert_eq!(decisions(&[served]), [no]);
        assert_eq!(decisions(&[aborted]), [no]);
        assert_eq!(decisions(&[exhausted]), [no]);
        assert_eq!(decisions(&[rejected, rejected]), [RetryDecision::Yes(State::Serving), no]);
        assert_eq!(decisions(&[unavailable, unavailable, unavailable]), [again, again, no]);
    }
}
