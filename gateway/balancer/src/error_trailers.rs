//! Replaces the error of a response that breaks off by trailers with a gRPC status.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use muse_proto::{Error, Reason};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::debug;

use super::{
    attempt::Attempt,
    classify::Outcome,
    map_result::{MapResult, MapResultFuture},
};

/// If the embedder breaks a response off, its caller gets a gRPC status in place of an error of the HTTP/2 stream.
#[derive(Debug, Clone)]
pub(super) struct ErrorTrailersLayer;

impl<S> Layer<S> for ErrorTrailersLayer {
    type Service = ErrorTrailers<S>;

    fn layer(&self, inner: S) -> ErrorTrailers<S> {
        ErrorTrailers { inner }
    }
}

/// The service of an [`ErrorTrailersLayer`].
#[derive(Debug, Clone)]
pub(super) struct ErrorTrailers<S> {
    inner: S,
}

impl<S, A, B> Service<Attempt<A>> for ErrorTrailers<S>
where
    S: Service<Attempt<A>, Response = Outcome<B>>,
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin + Send + 'static,
{
    type Response = Outcome;
    type Error = S::Error;
    type Future = MapResultFuture<S::Future, Sender>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt<A>) -> Self::Future {
        let sender = Sender { address: attempt.endpoint.address };
        MapResultFuture::new(self.inner.call(attempt), sender)
    }
}

/// The embedder that sends a response.
#[derive(Debug)]
pub(super) struct Sender {
    address: SocketAddr,
}

impl<B, E> MapResult<Result<Outcome<B>, E>> for Sender
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin + Send + 'static,
{
    type Output = Result<Outcome, E>;

    fn map_result(self, result: Result<Outcome<B>, E>) -> Self::Output {
        let outcome = result?;
        // The body has its type until here, so that this is the only box for it.
        Ok(outcome
            .map_body(|body| Body::new(ErrorTrailersBody { body, address: self.address, broken: false })))
    }
}

/// A response body that ends with a gRPC status if the embedder breaks it off.
#[derive(Debug)]
struct ErrorTrailersBody<B> {
    body: B,
    /// The embedder.
    address: SocketAddr,
    broken: bool,
}

impl<B: http_body::Body<Data = Bytes, Error = Status> + Unpin> http_body::Body for ErrorTrailersBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.broken {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Err(failure)) => {
                debug!(%failure, address = %this.address, "an embedder broke off a response");
                this.broken = true;
                let mut trailers = HeaderMap::new();
                // It fails only for text that is not a valid header value, which this text is.
                let _ = broken_off().add_header(&mut trailers);
                Some(Ok(Frame::trailers(trailers)))
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn broken_off() -> Status {
    Error::new(
        Reason::Unavailable,
        "the embedder broke off the response; requests without a response can be sent again",
    )
    .with_retry_after(Duration::from_secs(1))
    .into()
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use futures::stream;
    use http::Response;
    use http_body_util::{BodyExt, StreamBody};
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::attempt::CallKind;

    #[tokio::test]
    async fn response_that_breaks_off_ends_with_a_status() {
        let inner = service_fn(|_| {
            let frames = [Ok(Frame::data(Bytes::from("piece"))), Err(Status::unknown("reset"))];
            let response = Response::new(StreamBody::new(stream::iter(frames)));
            ready(Ok::<_, Infallible>(Outcome::Final(Ok(response))))
        });
        let attempt = Attempt::for_test(CallKind::Stream, ());
        let outcome = ErrorTrailersLayer.layer(inner).oneshot(attempt).await.unwrap();
        let body = outcome.into_result().unwrap().into_body().collect().await.unwrap();
        let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
        assert_eq!((status.code(), body.to_bytes().as_ref()), (Code::Unavailable, b"piece".as_slice()));
    }
}
