//! The proxy for `EmbedStream`: a stream is forwarded when its first item has arrived, over a connection of its own, which ends when
//! its caller leaves.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use muse_balancer::ModelIdentity;
use muse_proto::{Error, FINGERPRINT, Reason};
use muse_server::deadline;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{message::WholeMessages, stream_shutdown::StreamShutdown};
use crate::{api::request::BODY_WITHIN, upstream::Upstream};

/// The headers of a status.
const STATUS: [http::HeaderName; 3] =
    [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS];

/// Responds to a stream, and forwards it when its first item has arrived. The head of the response is sent before: there are
/// clients that wait for it before they send an item. Therefore the stream selects the model whose fingerprint the head contains.
pub(crate) fn forward_stream(upstream: Upstream, mut call: Request) -> Response {
    if let Err(mismatch) = upstream.embedder.check(call.headers()) {
        return Status::from(mismatch).into_http();
    }
    let model = upstream.embedder.served();
    if let Some(model) = &model {
        call.extensions_mut().insert(model.clone());
    }
    let shutdown = StreamShutdown::default();
    let call = shutdown.end_request(upstream.shutdown.clone(), call);
    let opening = open(upstream, call)
        .map(|opened| opened.unwrap_or_else(|error| Status::from(error).into_http()))
        .boxed();
    let mut response = Response::new(Body::new(StreamBody::Opening(opening)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(fingerprint) = model.as_ref().and_then(ModelIdentity::fingerprint) {
        response.headers_mut().insert(FINGERPRINT, fingerprint.into());
    }
    shutdown.replace_status(response)
}

async fn open(upstream: Upstream, call: Request) -> Result<Response, Error> {
    let (head, body) = call.into_parts();
    let end = deadline::end(&head.headers);
    let mut messages = WholeMessages::new(body);
    let has_item = deadline::within(end, async {
        match timeout(BODY_WITHIN, messages.begin()).await {
            Ok(has_item) => has_item.map_err(|_| invalid("the stream broke off")),
            Err(_) => Err(invalid("the first item of the stream did not arrive in time")),
        }
    });
    if !has_item.await? {
        return Ok(Status::new(Code::Ok, "").into_http());
    }
    let call = Request::from_parts(head, Body::new(messages));
    Ok(super::forward(upstream.embedder.clone(), call, end).await)
}

fn invalid(text: &str) -> Error {
    Error::new(Reason::InvalidArgument, text)
}

/// The response body of a stream.
enum StreamBody {
    /// The embedder has not responded yet.
    Opening(BoxFuture<'static, Response>),
    /// The body of the embedder's response.
    Open(Body),
    Ended,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Self::Opening(opening) = this {
            let (mut head, body) = ready!(opening.poll_unpin(context)).into_parts();
            let status = head.headers.contains_key(Status::GRPC_STATUS);
            *this = if status { Self::Ended } else { Self::Open(body) };
            if status {
                let of_status =
                    |name: http::HeaderName| head.headers.remove(&name).map(|value| (name, value));
                let trailers: HeaderMap = STATUS.into_iter().filter_map(of_status).collect();
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
        }
        match this {
            Self::Open(body) => Pin::new(body).poll_frame(context),
            Self::Opening(_) | Self::Ended => Poll::Ready(None),
        }
    }
}
