//! `EmbedStream`, forwarded: with its first item, over a connection of its own, which ends when its caller has left.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use muse_proto::{Error, Reason};
use muse_server::deadline;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{message::WholeMessages, stream_shutdown::Cut};
use crate::{api::request::BODY_WITHIN, upstream::Upstream};

/// The headers of a status.
const STATUS: [http::HeaderName; 3] =
    [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS];

/// Answers a stream, and forwards it as soon as its first item is there. The head of the answer does not wait for that: there are
/// clients that wait for the head before they send an item.
pub(crate) fn forward(upstream: Upstream, call: Request) -> Response {
    let cut = Cut::default();
    let call = cut.at(upstream.shutdown.clone(), call);
    let opening = open(upstream, call)
        .map(|opened| opened.unwrap_or_else(|refusal| Status::from(refusal).into_http()))
        .boxed();
    let mut response = Response::new(Body::new(StreamAnswer::Opening(opening)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    cut.told(response)
}

async fn open(upstream: Upstream, call: Request) -> Result<Response, Error> {
    let (head, body) = call.into_parts();
    let end = deadline::end(&head.headers);
    let mut messages = WholeMessages::new(body);
    let begun = deadline::within(end, async {
        match timeout(BODY_WITHIN, messages.begin()).await {
            Ok(begun) => begun.map_err(|_| invalid("the stream broke off")),
            Err(_) => Err(invalid("the first item of the stream did not arrive in time")),
        }
    });
    if !begun.await? {
        // No item, no answer.
        return Ok(Status::new(Code::Ok, "").into_http());
    }
    let call = Request::from_parts(head, Body::new(messages));
    Ok(super::forward(upstream.embedder.clone(), call, end).await)
}

fn invalid(text: &str) -> Error {
    Error::new(Reason::InvalidArgument, text)
}

/// The body of the answer to a stream.
enum StreamAnswer {
    /// Until the service behind has begun to answer.
    Opening(BoxFuture<'static, Response>),
    Answering(Body),
    Ended,
}

impl http_body::Body for StreamAnswer {
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
            *this = if status { Self::Ended } else { Self::Answering(body) };
            if status {
                let of_status =
                    |name: http::HeaderName| head.headers.remove(&name).map(|value| (name, value));
                let trailers: HeaderMap = STATUS.into_iter().filter_map(of_status).collect();
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
        }
        match this {
            Self::Answering(body) => Pin::new(body).poll_frame(context),
            Self::Opening(_) | Self::Ended => Poll::Ready(None),
        }
    }
}
