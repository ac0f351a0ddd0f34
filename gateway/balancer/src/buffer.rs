//! Buffers responses until they are complete, so that a call can be retried if its response breaks off.
//!
//! This is not tower's `Buffer`, which is a queue of requests.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response, response::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::{BoxError, Layer, Service};

use super::{
    attempt::{Attempt, CallKind},
    replay_memory::{ReplayMemory, ReplayReservation},
};

/// Buffers the response to each idempotent call that may be retried, as far as this memory suffices.
#[derive(Debug, Clone)]
pub(super) struct BufferLayer {
    memory: ReplayMemory,
}

impl BufferLayer {
    pub(super) fn new(memory: &ReplayMemory) -> Self {
        Self { memory: memory.clone() }
    }
}

impl<S> Layer<S> for BufferLayer {
    type Service = BufferResponse<S>;

    fn layer(&self, inner: S) -> BufferResponse<S> {
        BufferResponse { memory: self.memory.clone(), inner }
    }
}

/// The service of a [`BufferLayer`].
#[derive(Debug, Clone)]
pub(super) struct BufferResponse<S> {
    memory: ReplayMemory,
    inner: S,
}

impl<S, B> Service<Attempt> for BufferResponse<S>
where
    S: Service<Attempt, Response = Response<B>, Error = BoxError>,
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Response = Response<BufferedBody<B>>;
    type Error = BoxError;
    type Future = BufferFuture<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let buffers = attempt.kind == CallKind::Idempotent && attempt.replay().is_some();
        let reservation = buffers.then(|| self.memory.reservation());
        BufferFuture::Head { response: self.inner.call(attempt), reservation }
    }
}

pin_project! {
    /// The future of a [`BufferResponse`].
    #[project = Projected]
    #[derive(Debug)]
    pub(super) enum BufferFuture<F, B> {
        /// Waits for the head of the response.
        Head {
            #[pin]
            response: F,
            // None if the response is not buffered.
            reservation: Option<ReplayReservation>,
        },
        /// Buffers the body.
        Body { response: Option<(Parts, BufferedBody<B>)> },
    }
}

impl<F, B> Future for BufferFuture<F, B>
where
    F: Future<Output = Result<Response<B>, BoxError>>,
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Output = Result<Response<BufferedBody<B>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (head, body) = match self.as_mut().project() {
                Projected::Head { response, reservation } => {
                    let (head, rest) = ready!(response.poll(context))?.into_parts();
                    let reservation = reservation.take();
                    let is_buffered = reservation.is_some();
                    let body = BufferedBody { frames: VecDeque::new(), rest: Some(rest), reservation };
                    if !is_buffered {
                        return Poll::Ready(Ok(Response::from_parts(head, body)));
                    }
                    (head, body)
                }
                Projected::Body { response } => {
                    let (_, body) = response.as_mut().expect("a future is not polled after its end");
                    ready!(body.poll_read(context))?;
                    let (head, body) = response.take().expect("it is there");
                    return Poll::Ready(Ok(Response::from_parts(head, body)));
                }
            };
            self.set(Self::Body { response: Some((head, body)) });
        }
    }
}

/// A response body, of which a part or all is buffered.
#[derive(Debug)]
pub(super) struct BufferedBody<B> {
    frames: VecDeque<Frame<Bytes>>,
    /// The part that is not buffered; none if the body was read to its end. It is dropped then, which ends the load of the call.
    rest: Option<B>,
    /// Released after the last frame. None if nothing is buffered.
    reservation: Option<ReplayReservation>,
}

impl<B> Default for BufferedBody<B> {
    /// An empty body.
    fn default() -> Self {
        Self { frames: VecDeque::new(), rest: None, reservation: None }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> BufferedBody<B> {
    /// Reads the body to its end, or until no more memory can be reserved.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        while let Some(rest) = &mut self.rest {
            let Some(frame) = ready!(Pin::new(rest).poll_frame(context)).transpose()? else {
                self.rest = None;
                break;
            };
            let grow = |bytes| self.reservation.as_mut().is_some_and(|reservation| reservation.grow(bytes));
            let fits = frame.data_ref().map(Bytes::len).is_none_or(grow);
            self.frames.push_back(frame);
            if !fits {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<B> BufferedBody<B> {
    /// The trailers, if they are buffered.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.back().and_then(Frame::trailers_ref)
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for BufferedBody<B> {
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
        this.reservation = None;
        match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Some(rest) if self.frames.is_empty() => rest.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};
    use tonic::body::Body as ResponseBody;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{attempt::AttemptBody, replay_body::ReplayBody};

    const PIECES: [&str; 2] = ["one", "two"];

    /// A response of two frames, which ends with trailers or breaks off.
    fn response(breaks: bool) -> Response<ResponseBody> {
        let end = if breaks { Err(Status::unknown("reset")) } else { Ok(Frame::trailers(HeaderMap::new())) };
        let frames = PIECES.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece)))).chain([end]);
        Response::new(ResponseBody::new(StreamBody::new(stream::iter(frames))))
    }

    /// The body of the response to a call of this kind.
    async fn buffer(
        kind: CallKind,
        call: AttemptBody,
        breaks: bool,
        memory: &ReplayMemory,
    ) -> Result<BufferedBody<ResponseBody>, BoxError> {
        let inner = service_fn(|_| ready(Ok(response(breaks))));
        let response = BufferLayer::new(memory).layer(inner).oneshot(Attempt::for_test(kind, call)).await?;
        Ok(response.into_body())
    }

    fn replayed(memory: &ReplayMemory) -> AttemptBody {
        let body = ReplayBody::new(tonic::body::Body::empty(), 0, memory.reservation());
        AttemptBody::Replayed(body.replay())
    }

    #[tokio::test]
    async fn response_is_buffered_until_it_is_complete() {
        let memory = ReplayMemory::new(10);
        let body = buffer(CallKind::Idempotent, replayed(&memory), false, &memory).await.unwrap();
        assert!(body.rest.is_none() && body.trailers().is_some());
        assert!(!memory.reservation().grow(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), PIECES.concat());
        assert!(memory.reservation().grow(10));

        let broken = buffer(CallKind::Idempotent, replayed(&memory), true, &memory).await;
        assert!(broken.is_err() && memory.reservation().grow(10));
    }

    #[tokio::test]
    async fn response_beyond_the_memory_is_forwarded() {
        let memory = ReplayMemory::new(4);
        let body = buffer(CallKind::Idempotent, replayed(&memory), false, &memory).await.unwrap();
        assert!(body.rest.is_some() && body.trailers().is_none());
        assert_eq!(body.collect().await.unwrap().to_bytes(), PIECES.concat());
        assert!(memory.reservation().grow(4));
    }

    #[tokio::test]
    async fn response_to_a_stream_or_a_single_attempt_is_not_buffered() {
        let memory = ReplayMemory::new(10);
        let once = AttemptBody::Once(tonic::body::Body::empty());
        for (kind, call) in [(CallKind::Stream, replayed(&memory)), (CallKind::Idempotent, once)] {
            let mut body = buffer(kind, call, true, &memory).await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), PIECES[0]);
            assert!(memory.reservation().grow(10));
            assert!(body.collect().await.is_err());
        }
    }
}
