//! Layers that inspect a request before it is served, and its response afterwards. Unlike axum's `from_fn` they allocate no box for
//! a call: at one sentence a call, boxes and clones of axum's layers were a fifth of the gateway's work.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use muse_proto::Error;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::api::{problem::Problem, request::read_out, routing::error_response};

/// What a layer does before and after a request is served.
pub(crate) trait Around: Clone {
    /// Data of the request that `after` needs.
    type Context;

    /// Inspects or changes a request.
    ///
    /// # Errors
    ///
    /// The request is rejected.
    fn before(&self, request: &mut Request) -> Result<Self::Context, Rejection>;

    /// Inspects or changes the response.
    fn after(context: Self::Context, response: Response) -> Response;
}

/// Why a request is not served.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// The response has the format of the API that the path belongs to.
    Error(Error),
    /// The response is a problem document.
    Problem(Problem),
}

impl Rejection {
    async fn respond(self, request: Request) -> Response {
        match self {
            Self::Error(error) => error_response(request, error).await,
            Self::Problem(problem) => {
                read_out(request.into_body()).await;
                problem.into_response()
            }
        }
    }
}

/// The layer of an [`Around`].
#[derive(Debug, Clone)]
pub(crate) struct AroundLayer<A>(pub(crate) A);

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService { around: self.0.clone(), inner }
    }
}

/// The service of an [`AroundLayer`].
#[derive(Debug, Clone)]
pub(crate) struct AroundService<A, S> {
    around: A,
    inner: S,
}

impl<A, S> Service<Request> for AroundService<A, S>
where
    A: Around,
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = AroundFuture<S::Future, A>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.around.before(&mut request) {
            Ok(context) => {
                AroundFuture::Served { response: self.inner.call(request), context: Some(context) }
            }
            Err(rejection) => AroundFuture::Rejected { response: rejection.respond(request).boxed() },
        }
    }
}

pin_project! {
    /// The future of an [`AroundService`].
    #[project = Projected]
    pub(crate) enum AroundFuture<F, A: Around> {
        Served {
            #[pin]
            response: F,
            // Taken when the response is there.
            context: Option<A::Context>,
        },
        Rejected { response: BoxFuture<'static, Response> },
    }
}

impl<F, A> Future for AroundFuture<F, A>
where
    F: Future<Output = Result<Response, Infallible>>,
    A: Around,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            Projected::Served { response, context: before } => {
                let Ok(response) = ready!(response.poll(context));
                let before = before.take().expect("a future is not polled after its end");
                Poll::Ready(Ok(A::after(before, response)))
            }
            Projected::Rejected { response } => response.poll_unpin(context).map(Ok),
        }
    }
}
