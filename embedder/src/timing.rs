//! The durations of the steps of a call: as response metadata in the form of HTTP's
//! `Server-Timing`, and as spans of the trace.

use std::time::{Duration, Instant};

use muse_telemetry::request_telemetry::RequestContext;
use tonic::{Response, metadata::AsciiMetadataValue};

/// A finished step of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimedStep {
    pub(crate) name: &'static str,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// The response with the duration of each step, in milliseconds. Records the steps in the trace of the request, too.
pub(crate) fn with_server_timing<T>(
    response: T,
    steps: &[TimedStep],
    request: Option<&RequestContext>,
) -> Response<T> {
    let mut response = Response::new(response);
    let entry = |&TimedStep { name, began, took }: &TimedStep| {
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
