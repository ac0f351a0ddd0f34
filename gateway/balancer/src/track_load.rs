//! Counts each attempt as load of its endpoint until the response ends.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Response;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{
    attempt::{Attempt, AttemptBody, CallKind},
    guarded_body::GuardedBody,
    load::{InFlight, WeighedBody},
    map_result::{MapResult, MapResultFuture},
};

/// The load of an idempotent call besides its bytes: about what a forward pass costs for a few words more.
const IDEMPOTENT_WEIGHT: usize = 256;
/// The load of a stream, whose bytes come and go.
const STREAM_WEIGHT: usize = 8 << 10;

fn weight(kind: CallKind) -> usize {
    match kind {
        CallKind::Idempotent | CallKind::Other => IDEMPOTENT_WEIGHT,
        CallKind::Stream => STREAM_WEIGHT,
    }
}

/// Adds each attempt to the load of its endpoint until the response is dropped, and the bytes of its request if it is idempotent and
/// may be retried. With a single endpoint they are not counted: there is no choice.
#[derive(Debug, Clone)]
pub(super) struct TrackLoadLayer;

impl<S> Layer<S> for TrackLoadLayer {
    type Service = TrackLoad<S>;

    fn layer(&self, inner: S) -> TrackLoad<S> {
        TrackLoad { inner }
    }
}

/// The service of a [`TrackLoadLayer`].
#[derive(Debug, Clone)]
pub(super) struct TrackLoad<S> {
    inner: S,
}

impl<S, B> Service<Attempt> for TrackLoad<S>
where
    S: Service<Attempt<Body>, Response = Response<B>>,
{
    type Response = Response<GuardedBody<B, Arc<InFlight>>>;
    type Error = S::Error;
    type Future = MapResultFuture<S::Future, Tracked>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let Attempt { endpoint, model, kind, call } = attempt;
        let in_flight = endpoint.load.begin(weight(kind));
        let call = call.map(|body| match body {
            AttemptBody::Once(body) => body,
            AttemptBody::Replayed(body) if kind == CallKind::Idempotent => {
                Body::new(WeighedBody { body, call: Arc::clone(&in_flight) })
            }
            AttemptBody::Replayed(body) => Body::new(body),
        });
        let response = self.inner.call(Attempt { endpoint, model, kind, call });
        MapResultFuture::new(response, Tracked(in_flight))
    }
}

/// The call in flight of one attempt.
#[derive(Debug)]
pub(super) struct Tracked(Arc<InFlight>);

impl<B, E> MapResult<Result<Response<B>, E>> for Tracked {
    type Output = Result<Response<GuardedBody<B, Arc<InFlight>>>, E>;

    fn map_result(self, result: Result<Response<B>, E>) -> Self::Output {
        result.map(|response| response.map(|body| GuardedBody::new(body, self.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn attempt_is_load_until_its_response_is_dropped() {
        for (kind, weight) in [(CallKind::Idempotent, IDEMPOTENT_WEIGHT), (CallKind::Stream, STREAM_WEIGHT)] {
            let attempt = Attempt::for_test(kind, AttemptBody::Once(Body::empty()));
            let endpoint = Arc::clone(&attempt.endpoint);
            let during = service_fn(|attempt: Attempt<Body>| {
                assert_eq!(attempt.endpoint.load.get(), weight);
                ready(Ok::<_, Infallible>(Response::new(())))
            });
            let response = TrackLoadLayer.layer(during).oneshot(attempt).await.unwrap();
            assert_eq!(endpoint.load.get(), weight);
            drop(response);
            assert_eq!(endpoint.load.get(), 0);
        }
    }

    #[tokio::test]
    async fn failed_attempt_is_no_load() {
        let attempt = Attempt::for_test(CallKind::Idempotent, AttemptBody::Once(Body::empty()));
        let endpoint = Arc::clone(&attempt.endpoint);
        let fails = service_fn(|_| ready(Err::<Response<()>, _>("reset")));
        assert!(TrackLoadLayer.layer(fails).oneshot(attempt).await.is_err());
        assert_eq!(endpoint.load.get(), 0);
    }
}
