//! Maps the statuses that tonic itself returns to the error table.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use muse_proto::{Error, Reason};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// The status of the error table for one that tonic returns: for a message that is too large or
/// cannot be decompressed, and for an unknown method.
///
/// The [codec](muse_proto::Codec) sets the reason of messages that cannot be decoded. An error that
/// tonic returns before it calls the codec can be recognised by its text only.
#[must_use]
pub fn map_status(status: Status) -> Status {
    let text = status.message();
    let reason = match status.code() {
        _ if !status.details().is_empty() => return status,
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

/// Applies [`map_status`] to responses that consist of a status.
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
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ErrorMappingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        ErrorMappingFuture { response: self.0.call(request) }
    }
}

pin_project! {
    /// The future of [`ErrorMappingService`].
    pub struct ErrorMappingFuture<F> {
        #[pin]
        response: F,
    }
}

impl<F, Res, E> Future for ErrorMappingFuture<F>
where
    F: Future<Output = Result<Response<Res>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Poll::Ready(ready!(self.project().response.poll(context)).map(with_reason))
    }
}

fn with_reason<Res>(mut response: Response<Res>) -> Response<Res> {
    let headers = response.headers_mut();
    if let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) {
        // It fails only for text that is not a valid header, which a status never contains.
        let _ = map_status(status).add_header(headers);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    async fn mapped(status: Status) -> Status {
        let service = service_fn(move |_: Request<()>| {
            let response = status.clone().into_http::<()>();
            async { Ok::<_, Infallible>(response) }
        });
        let response = ErrorMapping.layer(service).oneshot(Request::new(())).await.unwrap();
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn status_of_tonic_gets_a_reason() {
        let size = "Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes";
        let bomb = "Error decompressing: size limit, of 5 bytes, exceeded while decompressing message";
        let not_found = Status::not_found("no such health");
        let cases = [
            (Status::out_of_range(size), Reason::TooLarge),
            (Status::resource_exhausted(bomb), Reason::TooLarge),
            (Status::internal("Error decompressing: corrupt"), Reason::InvalidArgument),
            (Status::unimplemented(""), Reason::Unimplemented),
        ];
        for (status, reason) in cases {
            let status = mapped(status).await;
            assert_eq!((status.code(), Error::from(&status).reason()), (reason.code(), reason));
            assert!(!status.details().is_empty() && !status.message().is_empty(), "{status}");
        }
        let status = mapped(not_found.clone()).await;
        assert_eq!((status.code(), status.message()), (not_found.code(), not_found.message()));
    }
}
