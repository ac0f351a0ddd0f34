//! Where the time of a call went, as response metadata in the form of HTTP's `Server-Timing`.

use std::time::Duration;

use tonic::{Response, metadata::AsciiMetadataValue};

/// `response`, and how long each step took, in milliseconds.
pub(crate) fn timed<T>(response: T, steps: &[(&str, Duration)]) -> Response<T> {
    let mut response = Response::new(response);
    let text: Vec<String> =
        steps.iter().map(|(name, took)| format!("{name};dur={:.3}", took.as_secs_f64() * 1e3)).collect();
    if let Ok(value) = AsciiMetadataValue::try_from(text.join(", ")) {
        response.metadata_mut().insert("server-timing", value);
    }
    response
}
