//! The layer that follows the requests of a server.

use std::{
    borrow::Cow,
    collections::HashSet,
    convert::Infallible,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
};

use http::{Request, Response, request::Parts};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{OTHER, Observation, Observed, Requests, Scoped};

/// Those of the methods of other packages that are served here.
const COMMON: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The method at a path, or [`OTHER`]: a label takes no value that a caller makes up.
#[must_use]
pub fn route(path: &str) -> &'static str {
    static METHODS: LazyLock<HashSet<&str>> =
        LazyLock::new(|| muse_proto::METHODS.iter().chain(&COMMON).copied().collect());
    METHODS.get(path).copied().unwrap_or(OTHER)
}

/// The route of a request to a gRPC server.
#[must_use]
pub fn call_of(request: &Parts) -> Cow<'static, str> {
    route(request.uri.path()).into()
}

/// Follows the requests of a server.
#[derive(Debug, Clone)]
pub struct Observe {
    /// The service's requests.
    pub requests: Requests,
    /// The route of each; of few values, and none that a caller makes up.
    pub route: fn(&Parts) -> Cow<'static, str>,
}

impl<S> Layer<S> for Observe {
    type Service = ObserveService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveService { inner, observe: self.clone() }
    }
}

/// The service of [`Observe`].
#[derive(Debug, Clone)]
pub struct ObserveService<S> {
    inner: S,
    observe: Observe,
}

impl<S, Req, Res> Service<Request<Req>> for ObserveService<S>
where
    S: Service<Request<Req>, Response = Response<Res>, Error = Infallible>,
{
    type Response = Response<Observed<Res>>;
    type Error = Infallible;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let Observe { requests, route } = &self.observe;
        let (head, body) = request.into_parts();
        let observation = requests.begin(route(&head), &head);
        let answer = observation.scope(self.inner.call(Request::from_parts(head, body)));
        ObserveFuture { answer, observation: Some(observation) }
    }
}

pin_project! {
    /// The future of [`ObserveService`].
    pub struct ObserveFuture<F> {
        #[pin]
        answer: Scoped<F>,
        // Until it is answered.
        observation: Option<Observation>,
    }
}

impl<F, Res> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<Res>, Infallible>>,
{
    type Output = Result<Response<Observed<Res>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.answer.poll(context));
        let observation = this.observation.take().expect("a future is not polled after its end");
        Poll::Ready(Ok(observation.answered(response)))
    }
}
