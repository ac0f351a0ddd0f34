//! What the answers of all HTTP routes have in common.

use std::time::Duration;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::{Error, Reason};
use serde::Serialize;
use tracing::error;

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(failure) => {
            error!(%failure, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// An answer with more sentences is written on a thread where that may take its time; a number takes some 30 ns.
const BRIEF_SENTENCES: usize = 16;

/// The answer to so many sentences, as `write` writes it.
pub(crate) async fn written(
    sentences: usize,
    write: impl FnOnce() -> Response + Send + 'static,
) -> Result<Response, Error> {
    if sentences <= BRIEF_SENTENCES {
        return Ok(write());
    }
    let writing = tokio::task::spawn_blocking(write).await;
    writing.map_err(|_| Error::new(Reason::Internal, "an answer could not be written"))
}

/// The status of an error.
pub(crate) fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.reason().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The text of an error for the client: what went wrong inside is in the log alone.
pub(crate) fn text(error: &Error) -> &str {
    match error.reason() {
        Reason::Internal => "Internal Server Error",
        _ => error.message(),
    }
}

/// Whole seconds after which a refused request may be tried again, if that is any use.
pub(crate) fn retry_after(error: &Error) -> Option<u64> {
    let passes = matches!(error.reason(), Reason::TooManyAttempts | Reason::Overloaded | Reason::Unavailable);
    let wait = error.retry_after().or(passes.then_some(Duration::from_secs(1)))?;
    Some(1.max(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

/// Says after how many seconds another try may succeed.
pub(crate) fn tell_wait(response: &mut Response, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
}
