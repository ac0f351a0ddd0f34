//! Outlier ejection: an endpoint that fails gets no calls until its health check reports that it serves.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    attempt::Attempt,
    classify::Outcome,
    endpoint::EmbedderEndpoint,
    map_result::{MapResult, MapResultFuture},
};

/// Ejects the endpoint of each attempt whose outcome is that the endpoint failed.
///
/// An endpoint that rejects a call with OVERLOADED is not ejected: the cause may be the deadline of the call, or the user's own
/// backlog.
#[derive(Debug, Clone)]
pub(super) struct OutlierEjectionLayer;

impl<S> Layer<S> for OutlierEjectionLayer {
    type Service = OutlierEjection<S>;

    fn layer(&self, inner: S) -> OutlierEjection<S> {
        OutlierEjection { inner }
    }
}

/// The service of an [`OutlierEjectionLayer`].
#[derive(Debug, Clone)]
pub(super) struct OutlierEjection<S> {
    inner: S,
}

impl<S, A, B> Service<Attempt<A>> for OutlierEjection<S>
where
    S: Service<Attempt<A>, Response = Outcome<B>>,
{
    type Response = Outcome<B>;
    type Error = S::Error;
    type Future = MapResultFuture<S::Future, Ejection>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt<A>) -> Self::Future {
        let ejection = Ejection(Arc::clone(&attempt.endpoint));
        MapResultFuture::new(self.inner.call(attempt), ejection)
    }
}

/// The endpoint of an attempt.
#[derive(Debug)]
pub(super) struct Ejection(Arc<EmbedderEndpoint>);

impl<B, E> MapResult<Result<Outcome<B>, E>> for Ejection {
    type Output = Result<Outcome<B>, E>;

    fn map_result(self, result: Result<Outcome<B>, E>) -> Self::Output {
        if let Ok(Outcome::EndpointFailed(_)) = &result {
            self.0.eject();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use http::Response;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{attempt::CallKind, endpoint::State};

    type NewOutcome = fn() -> Outcome<()>;

    #[tokio::test]
    async fn failed_endpoint_is_ejected() {
        let outcomes: [(NewOutcome, State); 4] = [
            (|| Outcome::Final(Ok(Response::new(()))), State::Serving),
            (|| Outcome::Final(Err("aborted".into())), State::Serving),
            (|| Outcome::Rejected(Response::new(())), State::Serving),
            (|| Outcome::EndpointFailed(Ok(Response::new(()))), State::Unavailable),
        ];
        for (outcome, state) in outcomes {
            let attempt = Attempt::for_test(CallKind::Idempotent, ());
            let endpoint = Arc::clone(&attempt.endpoint);
            endpoint.report(State::Serving, attempt.model.clone());
            let inner = service_fn(|_| ready(Ok::<_, Infallible>(outcome())));
            OutlierEjectionLayer.layer(inner).oneshot(attempt).await.unwrap();
            assert_eq!(endpoint.state(), state);
        }
    }
}
