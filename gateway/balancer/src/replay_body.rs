//! A request body that can be replayed: what was sent is buffered while it is sent. References to the bytes are buffered, not
//! copies.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use tonic::{Status, body::Body};

use super::replay_memory::ReplayReservation;

/// A body, and the part of it that was sent. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ReplayBody(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// The part that was not sent yet.
    rest: Body,
    sent: Vec<Bytes>,
    /// Bytes that may still be buffered.
    capacity: usize,
    /// The memory of the buffered bytes.
    reservation: ReplayReservation,
    /// The buffered part is incomplete.
    discarded: bool,
    /// The caller broke the body off.
    aborted: bool,
    ended: bool,
    /// Counts the attempts. Only the last one may read on.
    attempt: usize,
}

impl ReplayBody {
    /// Buffers at most `capacity` bytes, as long as memory can be reserved. A longer body is not buffered at all.
    pub(super) fn new(body: Body, capacity: usize, reservation: ReplayReservation) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rest: body,
            sent: Vec::new(),
            capacity,
            reservation,
            discarded: false,
            aborted: false,
            ended: false,
            attempt: 0,
        })))
    }

    /// The body from its beginning, for the next attempt. Bodies of earlier attempts end with an error.
    pub(super) fn replay(&self) -> ReplayedBody {
        let mut inner = self.lock();
        inner.attempt += 1;
        ReplayedBody { body: self.clone(), attempt: inner.attempt, position: 0 }
    }

    /// Whether the body can be replayed.
    pub(super) fn is_replayable(&self) -> bool {
        let inner = self.lock();
        !inner.discarded && !inner.aborted
    }

    /// Whether the caller broke the body off.
    pub(super) fn is_aborted(&self) -> bool {
        self.lock().aborted
    }

    /// Discards the buffered part. The body cannot be replayed any more.
    pub(super) fn discard(&self) {
        self.lock().discard();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn buffer(&mut self, piece: &Bytes) {
        if self.discarded {
            return;
        }
        match self.capacity.checked_sub(piece.len()) {
            Some(capacity) if self.reservation.grow(piece.len()) => {
                self.capacity = capacity;
                self.sent.push(piece.clone());
            }
            _ => self.discard(),
        }
    }

    fn discard(&mut self) {
        self.discarded = true;
        self.sent = Vec::new();
        self.reservation.release();
    }
}

/// The body of one attempt: first the buffered part, then the rest.
#[derive(Debug)]
pub(super) struct ReplayedBody {
    body: ReplayBody,
    attempt: usize,
    /// The index of the next buffered piece.
    position: usize,
}

impl ReplayedBody {
    /// The body that is replayed.
    pub(super) fn replay(&self) -> &ReplayBody {
        &self.body
    }
}

impl http_body::Body for ReplayedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut inner = this.body.lock();
        if inner.attempt != this.attempt {
            return Poll::Ready(Some(Err(Status::cancelled("the call was sent elsewhere"))));
        }
        if let Some(piece) = inner.sent.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if inner.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut inner.rest).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    inner.buffer(piece);
                    this.position = inner.sent.len();
                }
            }
            Some(Err(_)) => inner.aborted = true,
            None => inner.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.body.lock();
        inner.attempt == self.attempt
            && self.position >= inner.sent.len()
            && (inner.ended || inner.rest.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::{
        load::{Load, WeighedBody},
        replay_memory::ReplayMemory,
    };

    const PIECES: [&str; 3] = ["one", "two", "three"];

    fn body(end: Option<Status>) -> Body {
        let pieces = PIECES.map(|piece| Ok(Frame::data(Bytes::from(piece))));
        Body::new(StreamBody::new(stream::iter(pieces.into_iter().chain(end.map(Err)))))
    }

    type Weighed = WeighedBody<ReplayedBody>;

    /// The body of the next attempt, for an endpoint with this load.
    fn replay(body: &ReplayBody, load: &Load) -> Weighed {
        WeighedBody { body: body.replay(), call: load.begin(1) }
    }

    async fn read(body: &mut Weighed) -> Option<Result<Bytes, Status>> {
        body.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn replayed_body_counts_towards_the_load_of_its_endpoint() {
        let (memory, first, second) = (ReplayMemory::new(100), Load::default(), Load::default());
        let replayed = ReplayBody::new(body(None), 11, memory.reservation());
        let mut sent = replay(&replayed, &first);
        for piece in &PIECES[..2] {
            assert_eq!(read(&mut sent).await.unwrap().unwrap(), piece);
        }
        assert!(replayed.is_replayable());
        assert_eq!(first.get(), 1 + 6);
        let again = replay(&replayed, &second);
        assert!(read(&mut sent).await.unwrap().is_err(), "only the last attempt reads on");
        drop(sent);
        assert_eq!(first.get(), 0);
        assert_eq!(again.collect().await.unwrap().to_bytes(), PIECES.concat());
        let once_more = replayed.replay();
        assert_eq!(once_more.collect().await.unwrap().to_bytes(), PIECES.concat());
        assert!(!memory.reservation().grow(100));
        replayed.discard();
        assert!(memory.reservation().grow(100) && !replayed.is_replayable());
    }

    #[tokio::test]
    async fn body_too_long_or_aborted_is_sent_but_not_replayed() {
        for (capacity, bytes) in [(10, 100), (100, 10)] {
            let memory = ReplayMemory::new(bytes);
            let replayed = ReplayBody::new(body(None), capacity, memory.reservation());
            assert_eq!(replayed.replay().collect().await.unwrap().to_bytes(), PIECES.concat());
            assert!(!replayed.is_replayable() && !replayed.is_aborted());
            assert!(memory.reservation().grow(bytes));
        }
        let memory = ReplayMemory::new(100);
        let replayed = ReplayBody::new(body(Some(Status::cancelled("gone"))), 100, memory.reservation());
        assert!(replayed.replay().collect().await.is_err());
        assert!(!replayed.is_replayable() && replayed.is_aborted());
    }
}
