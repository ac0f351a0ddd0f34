//! An answer that is held back until it is whole, since it could break off.

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

use super::store::{Place, Store};

/// The body of an answer, all of it or as much as there was room for.
pub(super) struct Held {
    pieces: VecDeque<Frame<Bytes>>,
    rest: Body,
    /// Whether `rest` has come to its end.
    whole: bool,
    /// Given back when the last piece has gone.
    place: Place,
}

impl Held {
    /// Reads a body to its end, or until the store is full.
    pub(super) async fn read(body: Body, store: &Store) -> Result<Self, Status> {
        let mut held = Self { pieces: VecDeque::new(), rest: body, whole: false, place: store.place() };
        while let Some(frame) = held.rest.frame().await {
            let frame = frame?;
            let fits = frame.data_ref().is_none_or(|piece| held.place.take(piece.len()));
            held.pieces.push_back(frame);
            if !fits {
                return Ok(held);
            }
        }
        held.whole = true;
        Ok(held)
    }

    /// Whether nothing is left to come.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The trailers, if they have come.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.pieces.back().and_then(Frame::trailers_ref)
    }
}

impl http_body::Body for Held {
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
        this.place.clear();
        if this.whole {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.rest).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && (self.whole || self.rest.is_end_stream())
    }
}
