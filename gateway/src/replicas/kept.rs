//! The body of a call, which is kept while it is sent, so that it can be sent again. What is kept are references to the
//! bytes that came, not copies of them.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tonic::{Status, body::Body};

use super::{replica::InFlight, store::Place};

/// A body, and what was sent of it.
#[derive(Debug, Clone)]
pub(super) struct Kept(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    rest: Body,
    sent: Vec<Bytes>,
    /// Bytes that may be kept yet,
    room: usize,
    /// and where.
    place: Place,
    /// What was sent is no longer all there.
    lost: bool,
    /// The caller has not sent it to its end.
    broken: bool,
    ended: bool,
    /// Counts the times that it is sent. Only the last one goes on.
    turn: usize,
}

impl Kept {
    /// Keeps no more than `room` bytes, as long as there is a place for them; of a longer body nothing.
    pub(super) fn new(body: Body, room: usize, place: Place) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rest: body,
            sent: Vec::new(),
            room,
            place,
            lost: false,
            broken: false,
            ended: false,
            turn: 0,
        })))
    }

    /// The body from its beginning. The bytes add to the weight of the call if `weigh` says so.
    pub(super) fn send(&self, call: Arc<InFlight>, weigh: bool) -> Body {
        let turn = self.inner().next_turn();
        Body::new(Sending { kept: self.clone(), turn, next: 0, call, weigh })
    }

    /// Whether it can be sent once more.
    pub(super) fn is_whole(&self) -> bool {
        let inner = self.inner();
        !inner.lost && !inner.broken
    }

    /// Whether the caller broke it off, and nobody else is at fault.
    pub(super) fn is_broken(&self) -> bool {
        self.inner().broken
    }

    /// It will not be sent again.
    pub(super) fn let_go(&self) {
        self.inner().let_go();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sending {
    kept: Kept,
    turn: usize,
    /// The next of the kept pieces.
    next: usize,
    call: Arc<InFlight>,
    weigh: bool,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut guard = this.kept.inner();
        let inner = &mut *guard;
        if inner.turn != this.turn {
            return Poll::Ready(Some(Err(Status::cancelled("the call was sent elsewhere"))));
        }
        if let Some(piece) = inner.sent.get(this.next) {
            this.next += 1;
            if this.weigh {
                this.call.add(piece.len());
            }
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if inner.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut inner.rest).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    inner.keep(piece);
                    this.next = inner.sent.len();
                    if this.weigh {
                        this.call.add(piece.len());
                    }
                }
            }
            Some(Err(_)) => inner.broken = true,
            None => inner.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.kept.inner();
        inner.turn == self.turn
            && self.next >= inner.sent.len()
            && (inner.ended || inner.rest.is_end_stream())
    }
}

impl Inner {
    fn next_turn(&mut self) -> usize {
        self.turn += 1;
        self.turn
    }

    fn keep(&mut self, piece: &Bytes) {
        if self.lost {
            return;
        }
        match self.room.checked_sub(piece.len()) {
            Some(room) if self.place.take(piece.len()) => {
                self.room = room;
                self.sent.push(piece.clone());
            }
            _ => self.let_go(),
        }
    }

    fn let_go(&mut self) {
        self.lost = true;
        self.sent = Vec::new();
        self.place.clear();
    }
}
