//! Layers for rare kinds of requests. All other requests bypass them.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use futures::future::{BoxFuture, Either};
use tower::{Layer, Service};

/// Serves one kind of requests.
pub(crate) trait Detour: Clone {
    /// Whether a request is of this kind.
    fn applies(&self, request: &Request) -> bool;

    /// Serves a request, with the inner service.
    fn serve<S>(&self, request: Request, inner: S) -> BoxFuture<'static, Response>
    where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send;
}

/// The layer of a [`Detour`].
#[derive(Debug, Clone)]
pub(crate) struct DetourLayer<D>(pub(crate) D);

impl<D: Clone, S> Layer<S> for DetourLayer<D> {
    type Service = DetourService<D, S>;

    fn layer(&self, inner: S) -> Self::Service {
        DetourService { detour: self.0.clone(), inner }
    }
}

/// The service of a [`DetourLayer`].
#[derive(Debug, Clone)]
pub(crate) struct DetourService<D, S> {
    detour: D,
    inner: S,
}

impl<D, S> Service<Request> for DetourService<D, S>
where
    D: Detour,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if !self.detour.applies(&request) {
            return Either::Left(self.inner.call(request));
        }
        let response = self.detour.serve(request, self.inner.clone());
        Either::Right(Box::pin(async { Ok(response.await) }))
    }
}
