//! A request body that can be sent again: what was sent is stored while it is sent. References to the bytes are stored, not copies.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tonic::{Status, body::Body};

use super::{endpoint::InFlight, replay_memory::ReplayReservation};

/// A body, and the part of it that was sent.
#[derive(Debug, Clone)]
pub(super) struct ReplayBody(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    rest: Body,
    sent: Vec<Bytes>,
    /// Bytes that may still be stored,
    room: usize,
    /// and the memory that is reserved for those that are.
    reservation: ReplayReservation,
    /// The stored part is incomplete.
    lost: bool,
    /// The caller broke it off.
    broken: bool,
    ended: bool,
    /// Counts the attempts. Only the last one continues.
    turn: usize,
}

impl ReplayBody {
    /// Stores at most `room` bytes, as long as memory can be reserved; of a longer body nothing.
    pub(super) fn new(body: Body, room: usize, reservation: ReplayReservation) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rest: body,
            sent: Vec::new(),
            room,
            reservation,
            lost: false,
            broken: false,
            ended: false,
            turn: 0,
        })))
    }

    /// The body from its beginning. If `weigh`, its bytes are added to the load of the call.
    pub(super) fn send(&self, call: Arc<InFlight>, weigh: bool) -> Body {
        let turn = self.inner().next_turn();
        Body::new(Sending { kept: self.clone(), turn, next: 0, call, weigh })
    }

    /// Whether it can be replayed.
    pub(super) fn is_whole(&self) -> bool {
        let inner = self.inner();
        !inner.lost && !inner.broken
    }

    /// Whether the caller broke it off.
    pub(super) fn is_broken(&self) -> bool {
        self.inner().broken
    }

    /// Frees what is stored: it will not be replayed.
    pub(super) fn let_go(&self) {
        self.inner().let_go();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sending {
    kept: ReplayBody,
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
            Some(room) if self.reservation.take(piece.len()) => {
                self.room = room;
                self.sent.push(piece.clone());
            }
            _ => self.let_go(),
        }
    }

    fn let_go(&mut self) {
        self.lost = true;
        self.sent = Vec::new();
        self.reservation.clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};
    use muse_server::tls::Connector;
    use tokio_util::sync::CancellationToken;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::{endpoint::EmbedderEndpoint, replay_memory::ReplayMemory};

    const PIECES: [&str; 3] = ["one", "two", "three"];

    fn body(end: Option<Status>) -> Body {
        let pieces = PIECES.map(|piece| Ok(Frame::data(Bytes::from(piece))));
        Body::new(StreamBody::new(stream::iter(pieces.into_iter().chain(end.map(Err)))))
    }

    fn endpoint() -> Arc<EmbedderEndpoint> {
        let target = Endpoint::from_static("http://127.0.0.1:1");
        let address = "127.0.0.1:1".parse().unwrap();
        let connector = Connector::new(None);
        Arc::new(EmbedderEndpoint::new(address, (&target, &connector), CancellationToken::new()))
    }

    async fn read(body: &mut Body) -> Option<Result<Bytes, Status>> {
        body.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn replayed_body_counts_towards_the_load_of_its_endpoint() {
        let (store, first, second) = (ReplayMemory::of(100), endpoint(), endpoint());
        let kept = ReplayBody::new(body(None), 11, store.reservation());
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
        assert!(!store.reservation().take(100));
        kept.let_go();
        assert!(store.reservation().take(100) && !kept.is_whole());
    }

    #[tokio::test]
    async fn what_is_too_long_or_broken_off_goes_on_but_not_again() {
        for (room, bytes) in [(10, 100), (100, 10)] {
            let store = ReplayMemory::of(bytes);
            let kept = ReplayBody::new(body(None), room, store.reservation());
            let sent = kept.send(Arc::new(InFlight::new(&endpoint(), 1)), true);
            assert_eq!(sent.collect().await.unwrap().to_bytes(), PIECES.concat());
            assert!(!kept.is_whole() && !kept.is_broken());
            assert!(store.reservation().take(bytes));
        }
        let kept =
            ReplayBody::new(body(Some(Status::cancelled("gone"))), 100, ReplayMemory::of(100).reservation());
        let sent = kept.send(Arc::new(InFlight::new(&endpoint(), 1)), true);
        assert!(sent.collect().await.is_err());
        assert!(!kept.is_whole() && kept.is_broken());
    }
}
