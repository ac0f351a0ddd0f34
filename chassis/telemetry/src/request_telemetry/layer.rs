//! The layer that applies request telemetry to a server.

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
use tracing::{Instrument, instrument::Instrumented};

use super::{OTHER, RequestSpan, RequestTelemetry, TelemetryBody};

/// Methods of other packages that are served here.
const COMMON: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The gRPC method of a path, or [`OTHER`]: a label must not take values that a caller invents.
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

/// The layer of request telemetry.
#[derive(Debug, Clone)]
pub struct TelemetryLayer {
    /// The service's telemetry.
    pub requests: RequestTelemetry,
    /// The route label of a request: one of few values, none of them invented by a caller.
    pub route: fn(&Parts) -> Cow<'static, str>,
}

impl<S> Layer<S> for TelemetryLayer {
    type Service = TelemetryService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TelemetryService { inner, layer: self.clone() }
    }
}

/// The service of [`TelemetryLayer`].
#[derive(Debug, Clone)]
pub struct TelemetryService<S> {
    inner: S,
    layer: TelemetryLayer,
}

impl<S, Req, Res> Service<Request<Req>> for TelemetryService<S>
where
    S: Service<Request<Req>, Response = Response<Res>, Error = Infallible>,
{
    type Response = Response<TelemetryBody<Res>>;
    type Error = Infallible;
    type Future = TelemetryFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let TelemetryLayer { requests, route } = &self.layer;
        let (mut head, body) = request.into_parts();
        let span = requests.begin(route(&head), &head);
        head.extensions.insert(span.context.clone());
        let log = span.context.log();
        // The inner service may do work before it returns its future.
        let response = log.in_scope(|| self.inner.call(Request::from_parts(head, body)));
        let response = response.instrument(log.clone());
        TelemetryFuture { response, span: Some(span) }
    }
}

pin_project! {
    /// The future of [`TelemetryService`].
    pub struct TelemetryFuture<F> {
        #[pin]
        response: Instrumented<F>,
        // `None` after the response.
        span: Option<RequestSpan>,
    }
}

impl<F, Res> Future for TelemetryFuture<F>
where
    F: Future<Output = Result<Response<Res>, Infallible>>,
{
    type Output = Result<Response<TelemetryBody<Res>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.response.poll(context));
        let span = this.span.take().expect("a future is not polled after its end");
        Poll::Ready(Ok(span.respond(response)))
    }
}
