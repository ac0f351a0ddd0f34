//! Streams at the shutdown: no more of them is handed on, what was is answered, and then the client is told.

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

/// Whether a stream was cut short.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(Arc<AtomicBool>);

impl Cut {
    /// A call that ends at the shutdown.
    pub(crate) fn at(&self, shutdown: CancellationToken, call: Request) -> Request {
        let cut = Arc::clone(&self.0);
        call.map(|body| {
            Body::from_stream(body.into_data_stream().take_until(async move {
                shutdown.cancelled().await;
                cut.store(true, Ordering::Relaxed);
            }))
        })
    }

    /// Its answer, which says so where that has happened.
    pub(crate) fn told(self, answer: Response) -> Response {
        answer.map(|body| {
            Body::new(body.map_frame(move |mut frame| {
                if let Some(trailers) = frame.trailers_mut().filter(|_| self.0.load(Ordering::Relaxed)) {
                    // It fails only for text that is no header, which this is not.
                    let _ = shutting_down().add_header(trailers);
                }
                frame
            }))
        })
    }
}

fn shutting_down() -> Status {
    Error::new(Reason::Unavailable, "the service shuts down; what has no answer can be sent again")
        .with_retry_after(Duration::from_secs(1))
        .into()
}
