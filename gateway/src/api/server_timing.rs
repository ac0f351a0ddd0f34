//! The time of a request and of its parts, in the `Server-Timing` header (W3C Server Timing).

use std::time::Instant;

use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The clock of one request.
#[derive(Debug)]
pub(crate) struct Timing {
    started: Instant,
    /// The metrics that the embedder reports.
    parts: Option<String>,
}

impl Timing {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), parts: None }
    }

    /// Adds the metrics in the response of the embedder.
    pub(crate) fn add_upstream(&mut self, response: &MetadataMap) {
        let parts = response.get(SERVER_TIMING.as_str()).and_then(|parts| parts.to_str().ok());
        self.parts = parts.map(str::to_owned);
    }

    /// Stops the clock, and adds the header.
    pub(crate) fn add_header(self, mut response: Response) -> Response {
        let total = self.started.elapsed().as_secs_f64() * 1e3;
        let parts = self.parts.map(|parts| parts + ", ").unwrap_or_default();
        if let Ok(value) = HeaderValue::try_from(format!("{parts}total;dur={total:.3}")) {
            response.headers_mut().insert(SERVER_TIMING, value);
        }
        response
    }
}
