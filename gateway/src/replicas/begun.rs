//! The body of a call of which the first piece has come.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::{Status, body::Body};

/// A body whose first piece was read to look at.
pub(super) struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl Begun {
    /// Waits for the first piece of a body.
    pub(super) async fn read(mut body: Body) -> Result<Self, Status> {
        let first = body.frame().await.transpose()?;
        Ok(Self { first, rest: body })
    }

    /// The length of the message that begins with the first piece, as its prefix tells it: a flag and four bytes (gRPC over
    /// HTTP/2, "Length-Prefixed-Message"). 0 without a prefix.
    pub(super) fn message_bytes(&self) -> u32 {
        let prefix = self.first.as_ref().and_then(|first| first.data_ref()?.get(1..5)?.try_into().ok());
        prefix.map_or(0, u32::from_be_bytes)
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn body(pieces: Vec<&'static [u8]>) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    #[tokio::test]
    async fn a_body_is_whole_after_a_look_at_its_beginning() {
        let begun = Begun::read(body(vec![b"\0\0\0\x01\x02ab", b"cd"])).await.unwrap();
        assert_eq!(begun.message_bytes(), 0x102);
        assert!(!http_body::Body::is_end_stream(&begun));
        assert_eq!(begun.collect().await.unwrap().to_bytes(), &b"\0\0\0\x01\x02abcd"[..]);
        for short in [vec![], vec![&b"\0\0\0"[..]]] {
            let length = short.concat().len();
            let begun = Begun::read(body(short)).await.unwrap();
            assert_eq!(begun.message_bytes(), 0);
            assert_eq!(begun.collect().await.unwrap().to_bytes().len(), length);
        }
        let failing = stream::iter([Err::<Frame<Bytes>, _>(Status::cancelled("gone"))]);
        assert!(Begun::read(Body::new(StreamBody::new(failing))).await.is_err());
    }
}
