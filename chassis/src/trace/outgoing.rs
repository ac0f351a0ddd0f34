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

use super::hand_on;
use crate::request_telemetry::{self, RequestContext};

/// A client of another service. What it sends for a request that is being answered carries on its id and its trace, in which
/// each call is a span, until its answer begins.
#[derive(Debug, Clone)]
pub struct Outgoing<S>(pub S);

impl<S, Req, Res> Service<Request<Req>> for Outgoing<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    /// Only a call that is recorded takes a box.
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(task)
    }

    fn call(&mut self, mut call: Request<Req>) -> Self::Future {
        let Some(current) = RequestContext::get() else { return Either::Left(self.0.call(call)) };
        current.id.hand_on(call.headers_mut());
        if !current.is_recorded() {
            hand_on(&current.trace, call.headers_mut());
            return Either::Left(self.0.call(call));
        }
        let name = request_telemetry::route(call.uri().path());
        let trace = current.traces.begin(Cow::Borrowed(name), SpanKind::Client, &current.trace);
        hand_on(&trace, call.headers_mut());
        let answer = self.0.call(call);
        let recorded = async move {
            let answered = answer.await;
            let span = trace.span();
            span.set_attribute(KeyValue::new("rpc.system", "grpc"));
            // A status at once is a refusal, or the end of an answer without messages.
            let status = answered.as_ref().map(|answer| Status::from_header_map(answer.headers()));
            let failure = match &status {
                Ok(Some(status)) if status.code() != Code::Ok => {
                    Some(request_telemetry::name_of(status.code()))
                }
                Ok(_) => None,
                Err(_) => Some("no answer"),
            };
            if let Some(failure) = failure {
                span.set_status(SpanStatus::error(failure));
            }
            span.end();
            answered
        };
        Either::Right(recorded.boxed())
    }
}
