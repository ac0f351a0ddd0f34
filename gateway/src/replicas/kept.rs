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

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};
    use muse_chassis::tls::Connector;
    use tokio_util::sync::CancellationToken;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::replicas::{replica::Replica, store::Store};

    const PIECES: [&str; 3] = ["one", "two", "three"];

    fn body(end: Option<Status>) -> Body {
        let pieces = PIECES.map(|piece| Ok(Frame::data(Bytes::from(piece))));
        Body::new(StreamBody::new(stream::iter(pieces.into_iter().chain(end.map(Err)))))
    }

    fn replica() -> Arc<Replica> {
        let endpoint = Endpoint::from_static("http://127.0.0.1:1");
        let address = "127.0.0.1:1".parse().unwrap();
        let connector = Connector::new(None);
        Arc::new(Replica::new(address, (&endpoint, &connector), CancellationToken::new()))
    }

    async fn read(body: &mut Body) -> Option<Result<Bytes, Status>> {
        body.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn what_was_sent_is_sent_again_before_the_rest_and_weighs_on_its_replica() {
        let (store, first, second) = (Store::of(100), replica(), replica());
        let kept = Kept::new(body(None), 11, store.place());
        let mut sent = kept.send(Arc::new(InFlight::new(&first, 1)), true);
        for piece in &PIECES[..2] {
            assert_eq!(read(&mut sent).await.unwrap().unwrap(), piece);
        }
        assert!(kept.is_whole());
        assert_eq!(first.load(), 1 + 6);
        let again = kept.send(Arc::new(InFlight::new(&second, 1)), true);
        assert!(read(&mut sent).await.unwrap().is_err(), "only the last one goes on");
        drop(sent);
        assert_eq!(first.load(), 0);
        assert_eq!(again.collect().await.unwrap().to_bytes(), PIECES.concat());
        let once_more = kept.send(Arc::new(InFlight::new(&first, 1)), false);
        assert_eq!(once_more.collect().await.unwrap().to_bytes(), PIECES.concat());
        assert!(!store.place().take(100));
        kept.let_go();
        assert!(store.place().take(100) && !kept.is_whole());
    }

    #[tokio::test]
    async fn what_is_too_long_or_broken_off_goes_on_but_not_again() {
        for (room, bytes) in [(10, 100), (100, 10)] {
            let store = Store::of(bytes);
            let kept = Kept::new(body(None), room, store.place());
            let sent = kept.send(Arc::new(InFlight::new(&replica(), 1)), true);
            assert_eq!(sent.collect().await.unwrap().to_bytes(), PIECES.concat());
            assert!(!kept.is_whole() && !kept.is_broken());
            assert!(store.place().take(bytes));
        }
        let kept = Kept::new(body(Some(Status::cancelled("gone"))), 100, Store::of(100).place());
        let sent = kept.send(Arc::new(InFlight::new(&replica(), 1)), true);
        assert!(sent.collect().await.is_err());
        assert!(!kept.is_whole() && kept.is_broken());
    }
}
