//! Compares the model of each response with the one for which the endpoint was picked.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use muse_proto::{Error, Reason};
use tonic::Status;
use tower::{BoxError, Layer, Service};

use super::{
    attempt::Attempt,
    map_result::{MapResult, MapResultFuture},
    model::ModelIdentity,
};

/// Fails attempts whose response comes from another model than that of the endpoint: the process was restarted on the same address,
/// and its health was not checked since.
#[derive(Debug, Clone)]
pub(super) struct ModelCheckLayer;

impl<S> Layer<S> for ModelCheckLayer {
    type Service = ModelCheck<S>;

    fn layer(&self, inner: S) -> ModelCheck<S> {
        ModelCheck { inner }
    }
}

/// The service of a [`ModelCheckLayer`].
#[derive(Debug, Clone)]
pub(super) struct ModelCheck<S> {
    inner: S,
}

impl<S, A, B> Service<Attempt<A>> for ModelCheck<S>
where
    S: Service<Attempt<A>, Response = Response<B>, Error = BoxError>,
{
    type Response = Response<B>;
    /// [`ModelChanged`], and the errors of the service below.
    type Error = BoxError;
    type Future = MapResultFuture<S::Future, ExpectedModel>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt<A>) -> Self::Future {
        let expected = ExpectedModel(attempt.model.clone());
        MapResultFuture::new(self.inner.call(attempt), expected)
    }
}

/// The model for which the endpoint of an attempt was picked.
#[derive(Debug)]
pub(super) struct ExpectedModel(ModelIdentity);

impl<B> MapResult<Result<Response<B>, BoxError>> for ExpectedModel {
    type Output = Result<Response<B>, BoxError>;

    fn map_result(self, result: Result<Response<B>, BoxError>) -> Self::Output {
        let response = result?;
        if self.0.differs_from(response.headers()) { Err(ModelChanged.into()) } else { Ok(response) }
    }
}

/// The response comes from another model than that of the endpoint.
#[derive(Debug, thiserror::Error)]
#[error("the embedder was restarted with another model; the call can be sent again")]
pub(super) struct ModelChanged;

impl ModelChanged {
    /// The response in place of the one from another model.
    pub(super) fn into_response<B: Default>(self) -> Response<B> {
        let error = Error::new(Reason::Unavailable, self.to_string());
        Status::from(error.with_retry_after(Duration::from_secs(1))).into_http()
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use muse_proto::FINGERPRINT;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::attempt::CallKind;

    #[tokio::test]
    async fn response_of_another_model_fails_the_attempt() {
        let embedder = service_fn(|_: Attempt<()>| {
            let mut response = Response::new(());
            response.headers_mut().insert(FINGERPRINT, "f32-000000000001".parse().unwrap());
            ready(Ok::<_, BoxError>(response))
        });
        for (model, fails) in [("f32-000000000001", false), ("f32-000000000002", true)] {
            let mut attempt = Attempt::for_test(CallKind::Idempotent, ());
            attempt.model = ModelIdentity::Known(model.parse().unwrap());
            let result = ModelCheckLayer.layer(embedder).oneshot(attempt).await;
            assert_eq!(result.is_err_and(|failure| failure.is::<ModelChanged>()), fails, "{model}");
        }
    }
}
