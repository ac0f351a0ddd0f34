//! Counts the calls of a gRPC server.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::LazyLock,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use tower::{Layer, Service};

use super::{Caller, OTHER, Observed, Requests};

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

/// Counts the calls of a server.
#[derive(Debug, Clone)]
pub struct CountCalls(pub Requests);

impl<S> Layer<S> for CountCalls {
    type Service = CountedCalls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountedCalls { inner, requests: self.0.clone() }
    }
}

/// The service of [`CountCalls`].
#[derive(Debug, Clone)]
pub struct CountedCalls<S> {
    inner: S,
    requests: Requests,
}

impl<S, Req, Res> Service<Request<Req>> for CountedCalls<S>
where
    S: Service<Request<Req>, Response = Response<Res>, Error = Infallible>,
    S::Future: Send + 'static,
    Res: 'static,
{
    type Response = Response<Observed<Res>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let observation = self.requests.begin(route(request.uri().path()).into(), true);
        let answer = Caller::of(self.inner.call(request));
        let observed = async move {
            let (Ok(response), caller) = answer.await;
            Ok(observation.answered(caller, response))
        };
        observed.boxed()
    }
}
