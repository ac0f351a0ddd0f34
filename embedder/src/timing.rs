//! Where the time of a call went: as response metadata in the form of HTTP's `Server-Timing`, and in the call's trace.

use std::time::{Duration, Instant};

use muse_telemetry::request_telemetry::RequestContext;
use tonic::{Response, metadata::AsciiMetadataValue};

/// A part of the time, which was spent already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// `response` with the duration of each step in milliseconds, which the trace of the request gets, too.
pub(crate) fn timed<T>(response: T, steps: &[Step], request: Option<&RequestContext>) -> Response<T> {
    let mut response = Response::new(response);
    let entry = |&Step { name, began, took }: &Step| {
        if let Some(request) = request {
            request.record_step(name, began, took);
        }
        format!("{name};dur={:.3}", took.as_secs_f64() * 1e3)
    };
    let text: Vec<String> = steps.iter().map(entry).collect();
    if let Ok(value) = AsciiMetadataValue::try_from(text.join(", ")) {
        response.metadata_mut().insert("server-timing", value);
    }
    response
}
