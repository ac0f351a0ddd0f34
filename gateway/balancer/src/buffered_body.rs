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
#[derive(Debug)]
pub(super) struct BufferedBody {
    frames: VecDeque<Frame<Bytes>>,
    rest: Body,
    /// Whether `rest` has come to its end.
    complete: bool,
    /// Released after the last frame.
    reservation: ReplayReservation,
}

impl BufferedBody {
    /// Reads a body to its end, or until no more memory can be reserved.
    pub(super) async fn read(body: Body, memory: &ReplayMemory) -> Result<Self, Status> {
        let reservation = memory.reservation();
        let mut buffered = Self { frames: VecDeque::new(), rest: body, complete: false, reservation };
        while let Some(frame) = buffered.rest.frame().await {
            let frame = frame?;
            let fits = frame.data_ref().is_none_or(|piece| buffered.reservation.grow(piece.len()));
            buffered.frames.push_back(frame);
            if !fits {
                return Ok(buffered);
            }
        }
        buffered.complete = true;
        Ok(buffered)
    }

    /// Whether the body was read to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The trailers, if they were read.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.back().and_then(Frame::trailers_ref)
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
        if let Some(frame) = this.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        this.reservation.release();
        if this.complete {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.rest).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && (self.complete || self.rest.is_end_stream())
    }
}
