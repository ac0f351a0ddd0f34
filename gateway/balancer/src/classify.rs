//! Classifies the outcome of an attempt: whether another endpoint may serve the call.

use std::{
    error::Error as StdError,
    task::{Context, Poll},
};

use http::Response;
use muse_proto::{Error, Reason};
use tonic::{Code, Status, TimeoutExpired, body::Body};
use tower::{BoxError, Layer, Service};

use super::{
    attempt::{Attempt, CallResult},
    buffer::BufferedBody,
    map_result::{MapResult, MapResultFuture},
    model_check::ModelChanged,
    replay_body::ReplayBody,
};

/// The outcome of an attempt.
#[derive(Debug)]
pub(super) enum Outcome<B = Body> {
    /// A response, or an error that another endpoint would return, too. Of a call that is sent once: every response and error, except
    /// that of another model.
    Final(Result<Response<B>, BoxError>),
    /// The endpoint failed: another one may serve the call.
    EndpointFailed(Result<Response<B>, BoxError>),
    /// The endpoint rejected the call with OVERLOADED.
    Rejected(Response<B>),
}

impl Outcome {
    /// Whether the endpoint served the call: the response may still be an error of the caller.
    pub(super) fn is_served(&self) -> bool {
        matches!(self, Self::Final(Ok(_)))
    }

    pub(super) fn into_result(self) -> CallResult {
        match self {
            Self::Final(result) | Self::EndpointFailed(result) => result,
            Self::Rejected(response) => Ok(response),
        }
    }
}

impl<B> Outcome<B> {
    /// Replaces the body of the response, if there is one.
    pub(super) fn map_body<T>(self, map: impl FnOnce(B) -> T) -> Outcome<T> {
        match self {
            Self::Final(result) => Outcome::Final(result.map(|response| response.map(map))),
            Self::EndpointFailed(result) => Outcome::EndpointFailed(result.map(|response| response.map(map))),
            Self::Rejected(response) => Outcome::Rejected(response.map(map)),
        }
    }
}

/// Classifies the outcome of each attempt.
#[derive(Debug, Clone)]
pub(super) struct ClassifyLayer;

impl<S> Layer<S> for ClassifyLayer {
    type Service = Classify<S>;

    fn layer(&self, inner: S) -> Classify<S> {
        Classify { inner }
    }
}

/// The service of a [`ClassifyLayer`].
#[derive(Debug, Clone)]
pub(super) struct Classify<S> {
    inner: S,
}

impl<S, B> Service<Attempt> for Classify<S>
where
    S: Service<Attempt, Response = Response<BufferedBody<B>>, Error = BoxError>,
{
    type Response = Outcome<BufferedBody<B>>;
    /// Of `poll_ready`: a failed attempt is an outcome.
    type Error = BoxError;
    type Future = MapResultFuture<S::Future, Classifier>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let classifier = Classifier { replay: attempt.replay().cloned() };
        MapResultFuture::new(self.inner.call(attempt), classifier)
    }
}

/// Classifies the outcome of one attempt.
#[derive(Debug)]
pub(super) struct Classifier {
    /// The replay body of the call; none if it is sent once.
    replay: Option<ReplayBody>,
}

impl<B> MapResult<Result<Response<BufferedBody<B>>, BoxError>> for Classifier {
    type Output = Result<Outcome<BufferedBody<B>>, BoxError>;

    fn map_result(self, result: Result<Response<BufferedBody<B>>, BoxError>) -> Self::Output {
        Ok(match (result, self.replay) {
            (Err(failure), _) if failure.is::<ModelChanged>() => {
                Outcome::EndpointFailed(Ok(ModelChanged.into_response()))
            }
            (result, None) => Outcome::Final(result),
            (Err(failure), Some(replay)) => classify_failure(failure, replay.is_aborted()),
            (Ok(response), Some(_)) => {
                let trailers = response.body().trailers();
                let status = Status::from_header_map(trailers.unwrap_or(response.headers()));
                classify_response(response, status)
            }
        })
    }
}

/// Classifies an attempt without a complete response; `aborted` is whether the caller broke off the request.
fn classify_failure<B>(failure: BoxError, aborted: bool) -> Outcome<B> {
    if aborted || is_timeout(&*failure) || violates_protocol(&*failure) {
        Outcome::Final(Err(failure))
    } else {
        Outcome::EndpointFailed(Err(failure))
    }
}

/// Classifies a response by its status, if that is known.
fn classify_response<B>(response: Response<B>, status: Option<Status>) -> Outcome<B> {
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

/// The error and its causes.
fn causes<'a>(failure: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(failure), |&failure| failure.source())
}

/// Whether an established connection broke, other than by a timeout.
pub(super) fn broke_connection(failure: &(dyn StdError + 'static)) -> bool {
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
    use bytes::Bytes;
    use futures::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::replay_memory::ReplayMemory;

    type Response = http::Response<BufferedBody<Body>>;

    fn response(error: Option<Reason>) -> Result<Response, BoxError> {
        let status = error.map_or_else(|| Status::ok(""), |reason| Error::new(reason, "no").into());
        Ok(status.into_http())
    }

    fn classify(
        result: Result<Response, BoxError>,
        replay: Option<ReplayBody>,
    ) -> Outcome<BufferedBody<Body>> {
        Classifier { replay }.map_result(result).unwrap()
    }

    fn replay(body: Body) -> ReplayBody {
        ReplayBody::new(body, 10, ReplayMemory::new(10).reservation())
    }

    #[test]
    fn failures_of_the_endpoint_are_not_final() {
        let replay = || Some(replay(Body::empty()));
        assert!(matches!(classify(response(None), replay()), Outcome::Final(Ok(_))));
        let unavailable = response(Some(Reason::Unavailable));
        assert!(matches!(classify(unavailable, replay()), Outcome::EndpointFailed(Ok(_))));
        let overloaded = response(Some(Reason::Overloaded));
        assert!(matches!(classify(overloaded, replay()), Outcome::Rejected(_)));
        // Every endpoint would reject it.
        let exhausted = response(Some(Reason::QuotaExhausted));
        assert!(matches!(classify(exhausted, replay()), Outcome::Final(Ok(_))));
        assert!(matches!(classify(Err("x".into()), replay()), Outcome::EndpointFailed(Err(_))));
        assert!(matches!(classify(Err(TimeoutExpired(()).into()), replay()), Outcome::Final(Err(_))));
    }

    #[tokio::test]
    async fn failure_of_an_aborted_call_is_final() {
        let frames = stream::iter([Err::<Frame<Bytes>, _>(Status::cancelled("gone"))]);
        let aborted = replay(Body::new(StreamBody::new(frames)));
        assert!(aborted.replay().collect().await.is_err());
        assert!(matches!(classify(Err("x".into()), Some(aborted)), Outcome::Final(Err(_))));
    }

    #[test]
    fn single_attempt_is_final_unless_the_model_changed() {
        assert!(matches!(classify(response(Some(Reason::Unavailable)), None), Outcome::Final(Ok(_))));
        assert!(matches!(classify(Err("x".into()), None), Outcome::Final(Err(_))));
        let changed = classify(Err(ModelChanged.into()), None);
        assert!(matches!(changed, Outcome::EndpointFailed(Ok(_))));
    }
}
