//! A response body that reports its end to the telemetry.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use tonic::Code;

use super::{RequestSpan, status::End};

/// A body whose trailers end the request.
#[derive(Debug)]
pub struct TelemetryBody<B> {
    body: B,
    /// `None` after the end of the body.
    span: Option<RequestSpan>,
}

impl<B> TelemetryBody<B> {
    pub(super) fn new(body: B, span: Option<RequestSpan>) -> Self {
        Self { body, span }
    }
}

impl<B: Body + Unpin> Body for TelemetryBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, span } = &mut *self;
        let mut poll = || Pin::new(&mut *body).poll_frame(context);
        let frame = ready!(match &span {
            Some(span) => span.context.log().in_scope(poll),
            None => poll(),
        });
        let end = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(End::of_trailers),
            // It failed before its trailers.
            Some(Err(_)) | None => Some(End::Call(Code::Unknown)),
        };
        if let Some(end) = end
            && let Some(mut span) = span.take()
        {
            span.end(end);
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
