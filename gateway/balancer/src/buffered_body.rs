//! A response body that is buffered until it is complete, so that the call can be retried if the response breaks off.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::{Status, body::Body};

use super::replay_memory::{ReplayMemory, ReplayReservation};

/// The buffered part of a response body, and the rest of it if the memory did not suffice.
pub(super) struct BufferedBody {
    pieces: VecDeque<Frame<Bytes>>,
    rest: Body,
    /// Whether `rest` has come to its end.
    whole: bool,
    /// Released after the last piece.
    reservation: ReplayReservation,
}

impl BufferedBody {
    /// Reads a body to its end, or until no more memory can be reserved.
    pub(super) async fn read(body: Body, store: &ReplayMemory) -> Result<Self, Status> {
        let mut held =
            Self { pieces: VecDeque::new(), rest: body, whole: false, reservation: store.reservation() };
        while let Some(frame) = held.rest.frame().await {
            let frame = frame?;
            let fits = frame.data_ref().is_none_or(|piece| held.reservation.take(piece.len()));
            held.pieces.push_back(frame);
            if !fits {
                return Ok(held);
            }
        }
        held.whole = true;
        Ok(held)
    }

    /// Whether the body was read to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The trailers, if they were read.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.pieces.back().and_then(Frame::trailers_ref)
    }
}

impl http_body::Body for BufferedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        this.reservation.clear();
        if this.whole {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.rest).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && (self.whole || self.rest.is_end_stream())
    }
}
