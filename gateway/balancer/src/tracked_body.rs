//! A response body whose call is in flight until it is dropped.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use muse_proto::{Error, Reason};
use tokio_util::sync::DropGuard;
use tonic::{Status, body::Body};
use tracing::debug;

use super::load::InFlight;

/// The body of a response. Its call counts as load until this is dropped. If the embedder breaks it off, the caller gets a gRPC
/// status in place of an error of the HTTP/2 stream.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Body,
    /// The embedder.
    address: SocketAddr,
    broken: bool,
    _call: Arc<InFlight>,
    /// Of a stream: closes its connection.
    _connection: Option<DropGuard>,
}

impl TrackedBody {
    pub(super) fn new(
        body: Body,
        address: SocketAddr,
        call: Arc<InFlight>,
        connection: Option<DropGuard>,
    ) -> Self {
        Self { body, address, broken: false, _call: call, _connection: connection }
    }
}

impl http_body::Body for TrackedBody {
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
