//! Maps the statuses that tonic itself returns to the error table, and enforces deadlines.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use muse_proto::{Error, Reason};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::deadline;

/// The status of the error table for one of tonic's: for a message that cannot be decoded (invalid UTF-8 in a string, say) or is
/// too large, INVALID_ARGUMENT in place of INTERNAL.
#[must_use]
pub fn map_status(status: Status) -> Status {
    let text = status.message();
    let reason = match status.code() {
        _ if !status.details().is_empty() => return status,
        Code::Internal if text.starts_with("failed to decode Protobuf message") => Reason::InvalidArgument,
        Code::OutOfRange => Reason::TooLarge,
        // A compressed message that is malformed, or becomes too large.
        Code::ResourceExhausted if text.starts_with("Error decompressing: size limit") => Reason::TooLarge,
        Code::Internal if text.starts_with("Error decompressing:") => Reason::InvalidArgument,
        Code::Internal if text.starts_with("protocol error: received message with") => {
            Reason::InvalidArgument
        }
        Code::Unimplemented => Reason::Unimplemented,
        _ => return status,
    };
    let text = match text.strip_prefix("Error, decoded message length too large: ") {
        Some(sizes) => format!("the message is too large: {sizes}"),
        None if text.is_empty() => "there is no such method".to_owned(),
        None => text.to_owned(),
    };
    Error::new(reason, text).into()
}

/// Applies [`map_status`] to responses that consist of a status, and ends a call at its deadline with DEADLINE_EXCEEDED; tonic
/// alone would return CANCELLED a moment later.
#[derive(Debug, Clone, Copy)]
pub struct ErrorMapping;

impl<S> Layer<S> for ErrorMapping {
    type Service = ErrorMappingService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorMappingService(inner)
    }
}

/// The service of [`ErrorMapping`].
#[derive(Debug, Clone)]
pub struct ErrorMappingService<S>(S);

impl<S, Req, Res> Service<Request<Req>> for ErrorMappingService<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    Res: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ErrorMappingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let deadline = deadline::of(request.headers()).map(sleep);
        ErrorMappingFuture { answer: self.0.call(request), deadline }
    }
}

pin_project! {
    /// The future of [`ErrorMappingService`].
    pub struct ErrorMappingFuture<F> {
        #[pin]
        answer: F,
        #[pin]
        deadline: Option<Sleep>,
    }
}

impl<F, Res, E> Future for ErrorMappingFuture<F>
where
    F: Future<Output = Result<Response<Res>, E>>,
    Res: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.answer.poll(context) {
            return Poll::Ready(answer.map(rewritten));
        }
        match this.deadline.as_pin_mut().map(|deadline| deadline.poll(context)) {
            Some(Poll::Ready(())) => Poll::Ready(Ok(Status::from(deadline::passed()).into_http())),
            _ => Poll::Pending,
        }
    }
}

fn rewritten<Res>(mut response: Response<Res>) -> Response<Res> {
    let headers = response.headers_mut();
    if let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) {
        // It fails only for text that is not a valid header, which a status never contains.
        let _ = map_status(status).add_header(headers);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use tower::{ServiceExt, service_fn};

    use super::*;

    async fn answered(timeout: &str, after: Duration, with: Status) -> Status {
        let service = service_fn(move |_: Request<()>| {
            let answer = with.clone().into_http::<()>();
            async move {
                tokio::time::sleep(after).await;
                Ok::<_, Infallible>(answer)
            }
        });
        let request = Request::builder().header(deadline::GRPC_TIMEOUT, timeout).body(()).unwrap();
        let answer = ErrorMapping.layer(service).oneshot(request).await.unwrap();
        Status::from_header_map(answer.headers()).unwrap()
    }

    #[tokio::test]
    async fn each_of_tonic_s_refusals_has_its_reason() {
        let size = "Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes";
        let bomb = "Error decompressing: size limit, of 5 bytes, exceeded while decompressing message";
        let not_found = Status::not_found("no such health");
        let cases = [
            (Status::internal("failed to decode Protobuf message: x"), Reason::InvalidArgument),
            (Status::out_of_range(size), Reason::TooLarge),
            (Status::resource_exhausted(bomb), Reason::TooLarge),
            (Status::internal("Error decompressing: corrupt"), Reason::InvalidArgument),
            (Status::unimplemented(""), Reason::Unimplemented),
        ];
        for (status, reason) in cases {
            let told = answered("1S", Duration::ZERO, status).await;
            assert_eq!((told.code(), Error::from(&told).reason()), (reason.code(), reason));
            assert!(!told.details().is_empty() && !told.message().is_empty(), "{told}");
        }
        let told = answered("1S", Duration::ZERO, not_found.clone()).await;
        assert_eq!((told.code(), told.message()), (not_found.code(), not_found.message()));
    }

    #[tokio::test]
    async fn a_deadline_is_told_by_its_name() {
        let late = answered("5m", Duration::from_secs(60), Status::internal("never")).await;
        assert_eq!(Error::from(&late), deadline::passed());
        assert_eq!(late.code(), Code::DeadlineExceeded);
    }
}
