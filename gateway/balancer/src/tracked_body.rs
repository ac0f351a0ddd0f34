//! A response body whose call counts as load until it ends.

use std::{
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

use super::endpoint::InFlight;

/// The body of a response. Its call counts as load until it ends. If the embedder breaks it off, the caller gets a gRPC status in
/// place of an error of the HTTP/2 stream.
pub(super) struct TrackedBody {
    pub(super) body: Body,
    pub(super) call: Arc<InFlight>,
    /// Of a stream: closes its connection.
    pub(super) _connection: Option<DropGuard>,
    pub(super) broken: bool,
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
                debug!(%failure, call = ?this.call, "an answer was broken off");
                this.broken = true;
                let mut trailers = HeaderMap::new();
                // It fails only for text that is no header, which this is not.
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
    Error::new(Reason::Unavailable, "the embedder is gone; what has no answer can be sent again")
        .with_retry_after(Duration::from_secs(1))
        .into()
}
