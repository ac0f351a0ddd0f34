//! Where the time of a request went, in HTTP's `Server-Timing` header (W3C Server Timing).

use std::time::Instant;

use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The clock of one request.
#[derive(Debug)]
pub(crate) struct Timing {
    started: Instant,
    /// What the embedder says of its part.
    parts: Option<String>,
}

impl Timing {
    /// The request begins now.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), parts: None }
    }

    /// Takes in the timings of the service behind.
    pub(crate) fn add_upstream(&mut self, answered: &MetadataMap) {
        let said = answered.get(SERVER_TIMING.as_str()).and_then(|parts| parts.to_str().ok());
        self.parts = said.map(str::to_owned);
    }

    /// Says how long all took until now.
    pub(crate) fn add_header(self, mut response: Response) -> Response {
        let total = self.started.elapsed().as_secs_f64() * 1e3;
        let parts = self.parts.map(|parts| parts + ", ").unwrap_or_default();
        if let Ok(value) = HeaderValue::try_from(format!("{parts}total;dur={total:.3}")) {
            response.headers_mut().insert(SERVER_TIMING, value);
        }
        response
    }
}
