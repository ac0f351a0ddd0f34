//! Calls to other services, made for a request.

use std::{
    borrow::Cow,
    task::{Context as Task, Poll},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use http::{Request, Response};
use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status as SpanStatus, TraceContextExt},
};
use tonic::{Code, Status};
use tower::Service;

use super::{RequestContext, name_of, route};
use crate::trace::inject;

/// A client of another service. It adds the request id and the trace of the [`RequestContext`] in a
/// call's extensions to the call's headers. In the trace the call is a span, which ends when the
/// response begins.
#[derive(Debug, Clone)]
pub struct TracedClient<S>(pub S);

impl<S, Req, Res> Service<Request<Req>> for TracedClient<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    /// Boxed only for a recorded call.
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, mut call: Request<Req>) -> Self::Future {
        let Some(context) = call.extensions().get::<RequestContext>().cloned() else {
            return Either::Left(self.0.call(call));
        };
        context.id().forward(call.headers_mut());
        if !context.is_recorded() {
            inject(context.trace(), call.headers_mut());
            return Either::Left(self.0.call(call));
        }
        let name = route(call.uri().path());
        let trace = context.traces().begin(Cow::Borrowed(name), SpanKind::Client, context.trace());
        inject(&trace, call.headers_mut());
        let response = self.0.call(call);
        let recorded = async move {
            let outcome = response.await;
            let span = trace.span();
            span.set_attribute(KeyValue::new("rpc.system", "grpc"));
            // A status in the headers is an error, or the end of a response without messages.
            let status = outcome.as_ref().map(|response| Status::from_header_map(response.headers()));
            let failure = match &status {
                Ok(Some(status)) if status.code() != Code::Ok => Some(name_of(status.code())),
                Ok(_) => None,
                Err(_) => Some("no answer"),
            };
            if let Some(failure) = failure {
                span.set_status(SpanStatus::error(failure));
            }
            span.end();
            outcome
        };
        Either::Right(recorded.boxed())
    }
}
