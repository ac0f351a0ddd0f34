//! gRPC-Web, for browsers: requests are translated to gRPC, and responses back (`tonic-web`), in both modes and over both versions of
//! HTTP. The inner layers see gRPC alone.
//!
//! A request whose body does not consist of messages gets INVALID_ARGUMENT, also if a service has already replied: it is the caller's
//! fault, and must not be retried.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::{Buf, Bytes};
use futures::{FutureExt, future::BoxFuture};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use muse_proto::{Error, Reason};
use tonic::Status;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{api::routing::content_type, middleware::Detour};

/// The content types of gRPC-Web.
const CONTENT_TYPES: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

/// Translates the requests of gRPC-Web.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GrpcWeb;

impl Detour for GrpcWeb {
    fn applies(&self, request: &Request) -> bool {
        content_type(request.headers(), &CONTENT_TYPES).is_some()
    }

    fn serve<S>(&self, request: Request, inner: S) -> BoxFuture<'static, Response>
    where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        translate(request, inner).boxed()
    }
}

async fn translate<S>(mut request: Request, inner: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    if let Some(kind) = content_type(request.headers(), &CONTENT_TYPES) {
        // tonic-web accepts only lower case without parameters.
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let grpc = service_fn(move |call: http::Request<tonic::body::Body>| {
        let inner = inner.clone();
        let fault = Fault::default();
        // A body decoded from Base64 is shorter than its Content-Length.
        let call = call.map(|body| Body::new(CheckedBody::new(body, fault.clone())));
        async move {
            let Ok(response) = inner.oneshot(call).await;
            let response =
                if fault.get().is_some() { Status::from(fault.error()).into_http() } else { response };
            Ok::<_, Infallible>(in_trailers(response, fault))
        }
    });
    let Ok(response) = GrpcWebLayer::new().layer(grpc).oneshot(request).await;
    response.map(Body::new)
}

/// Moves a status from the headers to the trailers, which a page of another origin can read without CORS. The trailers
/// become a part of the body, so the length is not known any more.
fn in_trailers(response: Response, fault: Fault) -> Response {
    let (mut head, mut body) = response.into_parts();
    if head.headers.contains_key(Status::GRPC_STATUS) {
        let mut trailers = HeaderMap::new();
        for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
            if let Some(value) = head.headers.remove(&name) {
                trailers.insert(name, value);
            }
        }
        body = Body::new(Empty::new().with_trailers(std::future::ready(Some(Ok(trailers)))));
    }
    head.headers.remove(header::CONTENT_LENGTH);
    let body = body.map_frame(move |mut frame| {
        if let Some(trailers) = frame.trailers_mut().filter(|_| fault.get().is_some()) {
            trailers.clear();
            // It fails only for text that is not a valid header value, which these texts are.
            let _ = Status::from(fault.error()).add_header(trailers);
        }
        frame
    });
    Response::from_parts(head, Body::new(body))
}

/// The error in the body of a request, once it is found.
#[derive(Debug, Clone, Default)]
struct Fault(Arc<OnceLock<&'static str>>);

impl Fault {
    fn get(&self) -> Option<&'static str> {
        self.0.get().copied()
    }

    fn error(&self) -> Error {
        Error::new(Reason::InvalidArgument, self.get().unwrap_or("the request is malformed"))
    }
}

/// Bytes before a message: flags and its length.
const PREFIX: usize = 5;

/// The body of a gRPC request, which is checked while it is read.
struct CheckedBody {
    body: tonic::body::Body,
    fault: Fault,
    prefix: Vec<u8>,
    /// Bytes of the current message that have not arrived.
    missing: usize,
}

impl CheckedBody {
    fn new(body: tonic::body::Body, fault: Fault) -> Self {
        Self { body, fault, prefix: Vec::with_capacity(PREFIX), missing: 0 }
    }

    fn check(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        while !data.is_empty() {
            let rest = self.missing.min(data.len());
            self.missing -= rest;
            data.advance(rest);
            let part = data.len().min(PREFIX - self.prefix.len());
            if self.missing == 0 {
                self.prefix.extend_from_slice(&data[..part]);
                data.advance(part);
            }
            if self.prefix.len() == PREFIX {
                match self.prefix[0] {
                    0 | 1 => (),
                    0x80.. => return Err("a request of gRPC-Web has no trailers"),
                    _ => return Err("a message must begin with 0, or with 1 if it is compressed"),
                }
                let length = [self.prefix[1], self.prefix[2], self.prefix[3], self.prefix[4]];
                self.missing = u32::from_be_bytes(length) as usize;
                self.prefix.clear();
            }
        }
        Ok(())
    }

    fn fail(&self, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let _ = self.fault.0.set(text);
        Poll::Ready(Some(Err(self.fault.error().into())))
    }
}

impl HttpBody for CheckedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.data_ref().map_or(Ok(()), |data| this.check(data)) {
                Ok(()) => Poll::Ready(Some(Ok(frame))),
                Err(text) => this.fail(text),
            },
            Some(Err(_)) => {
                this.fail("the request broke off, or is not Base64 where its content type says so")
            }
            None if this.missing > 0 || !this.prefix.is_empty() => this.fail("a message broke off"),
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    async fn fault(body: &[u8], piece: usize) -> Option<&'static str> {
        let pieces: Vec<_> = body.chunks(piece).map(|piece| Ok::<_, Status>(piece.to_vec())).collect();
        let fault = Fault::default();
        let body = tonic::body::Body::new(Body::from_stream(stream::iter(pieces)));
        let read = CheckedBody::new(body, fault.clone()).collect().await;
        assert_eq!(read.is_err(), fault.get().is_some());
        fault.get()
    }

    #[tokio::test]
    async fn malformed_messages_are_found_in_parts_of_any_size() {
        let message = [&[0, 0, 0, 0, 3][..], b"abc"].concat();
        let trailers = [&[0x80, 0, 0, 0, 3][..], b"a:b"].concat();
        for piece in [1, 3, 5, 100] {
            assert_eq!(fault(&message.repeat(3), piece).await, None);
            assert_eq!(fault(&[0; 15], piece).await, None);
            let text = fault(&[&message[..], &trailers].concat(), piece).await;
            assert_eq!(text, Some("a request of gRPC-Web has no trailers"));
            for broken in [&message[..7], &message[..2]] {
                assert_eq!(fault(broken, piece).await, Some("a message broke off"));
            }
            let text = fault(b"!!!!!", piece).await;
            assert_eq!(text, Some("a message must begin with 0, or with 1 if it is compressed"));
        }
    }
}
