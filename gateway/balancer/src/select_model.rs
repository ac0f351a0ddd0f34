//! Selects the model that may serve a call, and rejects a call that requires another one.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::Either;
use http::{Request, Response};
use muse_proto::{Error, Fingerprint};
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service};

use super::{attempt::CallResult, cluster::Cluster, model::ModelIdentity, no_endpoint::no_endpoint};

/// Which model may serve a call.
#[derive(Debug)]
pub(super) struct ModelSelection {
    /// The model that the sender has selected, in place of the served one.
    selected: Option<ModelIdentity>,
    /// The fingerprint that the caller requires.
    required: Option<Fingerprint>,
}

impl ModelSelection {
    /// The selection in the extensions and headers of a call.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`](muse_proto::Reason) if the header is malformed.
    pub(super) fn of<B>(call: &Request<B>) -> Result<Self, Error> {
        let required = Fingerprint::required(call.headers())?;
        Ok(Self { selected: call.extensions().get().cloned(), required })
    }

    /// The selected or the served model; none if none is elected.
    fn current(&self, cluster: &Cluster) -> Option<ModelIdentity> {
        self.selected.clone().or_else(|| cluster.served())
    }

    /// The model for a retry: if the served model has changed since the last attempt, the new one, where the call allows it.
    pub(super) fn for_retry(&self, cluster: &Cluster) -> Option<ModelIdentity> {
        let model = self.current(cluster)?;
        model.check(self.required.as_ref()).ok()?;
        Some(model)
    }
}

/// A call with the model that may serve it.
#[derive(Debug)]
pub(super) struct SelectedCall {
    pub(super) call: Request<Body>,
    /// The model for the first attempt.
    pub(super) model: ModelIdentity,
    /// The models for further attempts.
    pub(super) selection: ModelSelection,
}

/// Selects the model for each call: that in its extensions, or the served one.
#[derive(Debug, Clone)]
pub(super) struct SelectModelLayer {
    cluster: Arc<Cluster>,
}

impl SelectModelLayer {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Self {
        Self { cluster: Arc::clone(cluster) }
    }
}

impl<S> Layer<S> for SelectModelLayer {
    type Service = SelectModel<S>;

    fn layer(&self, inner: S) -> SelectModel<S> {
        SelectModel { cluster: Arc::clone(&self.cluster), inner }
    }
}

/// The service of a [`SelectModelLayer`].
#[derive(Debug, Clone)]
pub(super) struct SelectModel<S> {
    cluster: Arc<Cluster>,
    inner: S,
}

impl<S> Service<Request<Body>> for SelectModel<S>
where
    S: Service<SelectedCall, Response = Response<Body>, Error = BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Either<Ready<CallResult>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, call: Request<Body>) -> Self::Future {
        let selection = match ModelSelection::of(&call) {
            Ok(selection) => selection,
            Err(malformed) => return Either::Left(ready(Ok(Status::from(malformed).into_http()))),
        };
        let Some(model) = selection.current(&self.cluster) else {
            return Either::Left(ready(no_endpoint(&self.cluster, None)));
        };
        match model.check(selection.required.as_ref()) {
            Ok(()) => Either::Right(self.inner.call(SelectedCall { call, model, selection })),
            Err(mismatch) => Either::Left(ready(Ok(model.reject(mismatch)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::{FINGERPRINT, Reason};
    use tower::{ServiceExt, service_fn};

    use super::*;

    const SERVED: &str = "f32-000000000001";
    const OTHER: &str = "f32-000000000002";

    fn known(text: &str) -> ModelIdentity {
        ModelIdentity::Known(text.parse().unwrap())
    }

    /// The response to a call that requires and selects these models. Its status message is the model for the call.
    async fn response(served: Option<&str>, required: Option<&str>, selected: Option<&str>) -> CallResult {
        let cluster = Arc::new(Cluster::for_test(served));
        let mut call = Request::new(Body::empty());
        call.headers_mut().extend(required.map(|text| (FINGERPRINT, text.parse().unwrap())));
        if let Some(selected) = selected {
            call.extensions_mut().insert(known(selected));
        }
        let inner = service_fn(|SelectedCall { model, .. }| ready(Ok(Status::ok(model.name()).into_http())));
        SelectModelLayer::new(&cluster).layer(inner).oneshot(call).await
    }

    #[tokio::test]
    async fn selected_model_precedes_the_served_one() {
        let model = async |selected| {
            let response = response(Some(SERVED), None, selected).await.unwrap();
            Status::from_header_map(response.headers()).unwrap().message().to_owned()
        };
        assert_eq!(model(None).await, SERVED);
        assert_eq!(model(Some(OTHER)).await, OTHER);
    }

    #[tokio::test]
    async fn call_that_requires_another_model_is_rejected() {
        let reason = async |required, selected| {
            let response = response(Some(SERVED), Some(required), selected).await.unwrap();
            let status = Status::from_header_map(response.headers()).unwrap();
            let fingerprint =
                response.headers().get(FINGERPRINT).map(|value| value.to_str().unwrap().to_owned());
            (Error::from(&status).reason(), fingerprint)
        };
        assert_eq!(reason(OTHER, None).await, (Reason::FingerprintMismatch, Some(SERVED.to_owned())));
        assert_eq!(reason(SERVED, Some(OTHER)).await, (Reason::FingerprintMismatch, Some(OTHER.to_owned())));
        assert_eq!(reason("malformed", None).await, (Reason::InvalidArgument, None));
    }

    #[tokio::test]
    async fn call_without_an_elected_model_fails() {
        let failure = response(None, None, None).await.unwrap_err();
        assert_eq!(failure.to_string(), "no embedder is known");
        assert!(response(None, None, Some(OTHER)).await.is_ok());
    }
}
