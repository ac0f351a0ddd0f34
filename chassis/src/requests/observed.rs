//! The body of an answer, followed to its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::Observation;

/// A body whose trailers are the end of a request.
#[derive(Debug)]
pub struct Observed<B> {
    body: B,
    /// Until it has ended.
    observation: Option<Observation>,
}

impl<B> Observed<B> {
    pub(super) fn new(body: B, observation: Option<Observation>) -> Self {
        Self { body, observation }
    }
}

impl<B: Body + Unpin> Body for Observed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let ended_with = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(code),
            // Broken off before its trailers.
            Some(Err(_)) | None => Some(Code::Unknown),
        };
        if let Some(code) = ended_with
            && let Some(observation) = self.observation.take()
        {
            observation.ended_with(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code(trailers: &HeaderMap) -> Code {
    Status::from_header_map(trailers).map_or(Code::Unknown, |status| status.code())
}
