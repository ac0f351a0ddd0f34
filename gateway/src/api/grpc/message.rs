//! The messages of gRPC calls, length-prefixed (gRPC over HTTP/2, "Length-Prefixed-Message": a flag for compression, four bytes of
//! length, the message).
//!
//! A unary call is forwarded when its whole message has arrived. So a caller who sends slowly, or not to the end, uses no resources
//! of other services, and a call can be retried.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use muse_proto::{Error, Reason};
use muse_server::memory_budget::{MemoryBudget, Reservation};
use tokio::time::{Instant, timeout_at};

/// Bytes before each message.
const PREFIX: usize = 5;
/// Bytes of a stream that are forwarded together at most.
const PIECE: usize = 16 << 10;

/// The limits of the message of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageLimits {
    /// Bytes of the message.
    pub(crate) bytes: usize,
    /// Timeout of the next part.
    pub(crate) next_part: Duration,
    /// Timeout of the whole message.
    pub(crate) whole: Duration,
}

/// The message of a unary call.
#[derive(Debug)]
pub(crate) struct Message {
    /// With its prefix.
    pub(crate) framed: Bytes,
    /// The memory of a large message.
    pub(crate) reservation: Option<Reservation>,
}

impl Message {
    /// The message without its prefix, if it is not compressed.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        (self.framed.first() == Some(&0)).then(|| &self.framed[PREFIX..])
    }

    /// Reads the one message of a call. Its memory is accounted to `caller` in `memory`.
    ///
    /// # Errors
    ///
    /// [`Reason::TooLarge`]; [`Reason::Overloaded`] if there is no memory for it; [`Reason::InvalidArgument`] if it is not
    /// exactly one message, or does not come in time.
    pub(crate) async fn read(
        mut body: Body,
        limits: MessageLimits,
        memory: &MemoryBudget,
        caller: &str,
    ) -> Result<Self, Error> {
        let end = Instant::now() + limits.whole;
        let next = async |body: &mut Body| {
            let part = timeout_at(end.min(Instant::now() + limits.next_part), body.frame()).await;
            let part = part.map_err(|_| invalid("the message did not come in time"))?;
            let part = part.transpose().map_err(|_| invalid("the message broke off"))?;
            Ok::<_, Error>(part.map(|frame| frame.into_data().unwrap_or_default()))
        };
        let mut first = BytesMut::new();
        while first.len() < PREFIX {
            match next(&mut body).await? {
                // Most messages come in one part.
                Some(part) if first.is_empty() && part.len() >= PREFIX => first = part.into(),
                Some(part) => first.extend_from_slice(&part),
                None if first.is_empty() => return Err(invalid("the call has no message")),
                None => return Err(invalid("the message broke off")),
            }
        }
        if first[0] > 1 {
            return Err(invalid("the message has no valid prefix: its first byte must be 0 or 1"));
        }
        let length = message_length(&first);
        if length > limits.bytes {
            let most = limits.bytes;
            let text = format!("the message is too large: found {length} bytes, the limit is: {most} bytes");
            return Err(Error::new(Reason::TooLarge, text));
        }
        let reservation = memory.reserve(caller, length).await?;
        let whole = PREFIX + length;
        let mut framed = first;
        if framed.len() < whole {
            framed.reserve(whole - framed.len());
        }
        loop {
            if framed.len() > whole {
                return Err(invalid("a unary call carries one message, and this one carries more"));
            }
            let is_whole = framed.len() == whole;
            if is_whole && body.is_end_stream() {
                break;
            }
            match next(&mut body).await? {
                Some(part) => framed.extend_from_slice(&part[..part.len().min(whole + 1 - framed.len())]),
                None if is_whole => break,
                None => return Err(invalid("the message broke off")),
            }
        }
        Ok(Self { framed: framed.freeze(), reservation })
    }
}

/// The length that a message's prefix states.
fn message_length(framed: &[u8]) -> usize {
    framed.get(1..PREFIX).and_then(|length| length.try_into().ok()).map_or(0, u32::from_be_bytes) as usize
}

fn invalid(text: &str) -> Error {
    Error::new(Reason::InvalidArgument, text)
}

/// The body of a stream, cut between messages where that is possible.
///
/// A caller may send each byte in a frame of its own. Forwarded as such, each frame would take a few hundred bytes in the other
/// service until it is read.
#[derive(Debug)]
pub(crate) struct WholeMessages {
    body: Body,
    buffer: BytesMut,
    /// Bytes in the buffer up to the last end of a message.
    whole: usize,
    /// Bytes of a partly forwarded message that have not arrived.
    missing: usize,
    ended: bool,
}

impl WholeMessages {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), whole: 0, missing: 0, ended: false }
    }

    /// Reads until bytes can be forwarded. Returns whether there are any before the end.
    pub(crate) async fn begin(&mut self) -> Result<bool, axum::Error> {
        std::future::poll_fn(|context| self.poll_fill(context, 1)).await?;
        Ok(!self.buffer.is_empty())
    }

    /// Reads until `enough` bytes can be forwarded, or no more are ready, or the body ends.
    fn poll_fill(&mut self, context: &mut Context<'_>, enough: usize) -> Poll<Result<(), axum::Error>> {
        while !self.ended && self.ready_bytes() < enough && self.buffer.len() < PIECE {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                        self.find_ends();
                    }
                }
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Err(failure)),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending if self.ready_bytes() > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn find_ends(&mut self) {
        if self.missing > self.buffer.len() {
            return;
        }
        self.whole = self.whole.max(self.missing);
        while let Some(rest) = self.buffer.get(self.whole..).filter(|rest| rest.len() >= PREFIX) {
            let length = PREFIX + message_length(rest);
            if length > rest.len() {
                return;
            }
            self.whole += length;
        }
    }

    /// The bytes that can be forwarded: whole messages, or a piece of a long one.
    fn ready_bytes(&self) -> usize {
        match self.whole {
            0 if self.buffer.len() >= PIECE || self.ended => self.buffer.len(),
            whole => whole,
        }
    }
}

impl http_body::Body for WholeMessages {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_fill(context, PIECE))?;
        let length = this.ready_bytes();
        if length == 0 {
            return Poll::Ready(None);
        }
        this.missing = match this.missing {
            _ if length == this.whole => 0,
            0 => (PREFIX + message_length(&this.buffer)).saturating_sub(length),
            missing => missing.saturating_sub(length),
        };
        this.whole = 0;
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split_to(length).freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use proptest::prelude::*;

    use super::*;

    const LIMITS: MessageLimits =
        MessageLimits { bytes: 1 << 20, next_part: Duration::from_secs(30), whole: Duration::from_secs(300) };

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn body(parts: impl IntoIterator<Item = Vec<u8>>) -> Body {
        let parts: Vec<_> = parts.into_iter().map(Ok::<_, std::io::Error>).collect();
        Body::from_stream(stream::iter(parts))
    }

    async fn read(body: Body) -> Result<Message, Error> {
        Message::read(body, LIMITS, &MemoryBudget::new(4 << 20, 64 << 10, Duration::from_secs(1)), "ann")
            .await
    }

    #[tokio::test]
    async fn message_is_read_from_parts_of_any_size() {
        let sent = framed(&[7; 100_000]);
        for size in [1, 3, 5, 6, 64_000, 200_000] {
            let message = read(body(sent.chunks(size).map(<[u8]>::to_vec))).await.unwrap();
            assert_eq!(message.plain(), Some(&sent[PREFIX..]));
            assert!(message.reservation.is_some());
        }
        assert!(read(body([framed(b"")])).await.unwrap().reservation.is_none());
    }

    #[tokio::test]
    async fn malformed_message_is_an_invalid_argument() {
        let two = [framed(b"a"), framed(b"b")];
        let cases: [(Vec<Vec<u8>>, &str); 6] = [
            (vec![], "no message"),
            (vec![vec![0, 0]], "broke off"),
            (vec![framed(b"abc")[..7].to_vec()], "broke off"),
            (two.to_vec(), "one message"),
            (vec![two.concat()], "one message"),
            (vec![vec![9, 0, 0, 0, 0]], "prefix"),
        ];
        for (parts, expected) in cases {
            let error = read(body(parts)).await.unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidArgument, "{error}");
            assert!(error.message().contains(expected), "{error}");
        }
        let error = read(body([vec![0, 0, 0x20, 0, 0]])).await.unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
    }

    #[tokio::test]
    async fn message_that_stops_arriving_is_rejected_in_time() {
        let milliseconds = Duration::from_millis;
        let limits = MessageLimits { bytes: 1 << 20, next_part: milliseconds(50), whole: milliseconds(200) };
        let read = async |body| {
            let began = Instant::now();
            let read = Message::read(
                body,
                limits,
                &MemoryBudget::new(4 << 20, 64 << 10, Duration::from_secs(1)),
                "ann",
            )
            .await;
            assert_eq!(read.unwrap_err().reason(), Reason::InvalidArgument);
            began.elapsed()
        };
        let prefix = || stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(&[0, 0, 1, 0, 0]))]);
        let silent = Body::from_stream(prefix().chain(stream::pending()));
        assert!((milliseconds(50)..milliseconds(190)).contains(&read(silent).await));
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(Bytes::from_static(&[0])), ()))
        });
        assert!(read(Body::from_stream(prefix().chain(drip))).await >= milliseconds(200));
    }

    proptest! {
        #[test]
        fn stream_is_cut_between_messages(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40),
            long in 0..70_000_usize,
            cut in 1..700_usize,
        ) {
            let all = [messages.iter().flat_map(|message| framed(message)).collect(), framed(&vec![1; long])].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut parts = WholeMessages::new(body(all.chunks(cut).map(<[u8]>::to_vec)));
            let mut sent = Vec::new();
            runtime.block_on(async {
                while let Some(part) = parts.frame().await {
                    let part = part.unwrap().into_data().unwrap();
                    prop_assert!(part.len() <= PIECE + cut + 64);
                    sent.extend_from_slice(&part);
                }
                Ok(())
            })?;
            prop_assert_eq!(sent, all);
        }
    }

    #[tokio::test]
    async fn incomplete_message_is_not_forwarded_in_small_frames() {
        let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<Bytes, std::io::Error>>();
        let mut parts = WholeMessages::new(Body::from_stream(receiver));
        let sent = [framed(b"one"), framed(b"two")].concat();
        for byte in &sent[..10] {
            sender.unbounded_send(Ok(Bytes::copy_from_slice(&[*byte]))).unwrap();
        }
        let first = parts.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, framed(b"one"));
        assert!(futures::FutureExt::now_or_never(parts.frame()).is_none());
        sender.unbounded_send(Ok(Bytes::copy_from_slice(&sent[10..]))).unwrap();
        assert_eq!(parts.frame().await.unwrap().unwrap().into_data().unwrap(), framed(b"two"));
        drop(sender);
        assert!(parts.frame().await.is_none());
    }
}
