//! Graceful shutdown of streams: no more items are forwarded, the forwarded ones are served, and then the stream ends with
//! UNAVAILABLE.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use futures::StreamExt;
use http_body_util::BodyExt;
use muse_proto::{Error, Reason};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Whether the shutdown has ended the request of a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamShutdown(Arc<AtomicBool>);

impl StreamShutdown {
    /// Ends the request body at the shutdown.
    pub(crate) fn end_request(&self, shutdown: CancellationToken, call: Request) -> Request {
        let ended = Arc::clone(&self.0);
        call.map(|body| {
            Body::from_stream(body.into_data_stream().take_until(async move {
                shutdown.cancelled().await;
                ended.store(true, Ordering::Relaxed);
            }))
        })
    }

    /// Replaces the status of the response if the shutdown has ended the request.
    pub(crate) fn replace_status(self, response: Response) -> Response {
        response.map(|body| {
            Body::new(body.map_frame(move |mut frame| {
                if let Some(trailers) = frame.trailers_mut().filter(|_| self.0.load(Ordering::Relaxed)) {
                    // It fails only for text that is not a valid header value, which this text is.
                    let _ = shutting_down().add_header(trailers);
                }
                frame
            }))
        })
    }
}

fn shutting_down() -> Status {
    Error::new(Reason::Unavailable, "the service shuts down; items without a response can be sent again")
        .with_retry_after(Duration::from_secs(1))
        .into()
}
