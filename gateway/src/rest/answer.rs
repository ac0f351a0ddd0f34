//! Bodies of the answers: JSON objects in the shapes that clients of the old service know.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::{Error, Reason};
use serde::Serialize;
use serde_json::json;
use tonic::Status;
use tracing::error;

use crate::upstream::failure;

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

/// `{"message": text}`.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    json(status, &json!({ "message": text }))
}

/// A request that is answered with an error.
#[derive(Debug)]
pub(super) enum Refusal {
    /// An argument that is needed is not there.
    Blank(&'static str),
    /// A JSON content type with a body that is no JSON.
    NotJson,
    /// From the table of errors.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Error(failure(&status))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Blank(field) => {
                let body = json!({ "message": { field: "This field cannot be blank" } });
                json(StatusCode::BAD_REQUEST, &body)
            }
            Self::NotJson => message(
                StatusCode::BAD_REQUEST,
                "The browser (or proxy) sent a request that this server could not understand.",
            ),
            Self::Error(error) => from_table(&error),
        }
    }
}

fn from_table(error: &Error) -> Response {
    let status =
        StatusCode::from_u16(error.reason().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match error.reason() {
        Reason::BadCredentials
        | Reason::TokenMissing
        | Reason::TokenMalformed
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenRevoked
        | Reason::TokenKind => json(status, &json!({ "msg": error.message() })),
        // What went wrong inside is in the log.
        Reason::Internal => message(status, "Internal Server Error"),
        Reason::InvalidArgument
        | Reason::TooLarge
        | Reason::PermissionDenied
        | Reason::NoSuchUser
        | Reason::NoSuchModel
        | Reason::UserExists
        | Reason::LastAdmin
        | Reason::TooManyAttempts
        | Reason::Overloaded
        | Reason::Unavailable
        | Reason::DeadlineExceeded
        | Reason::Unimplemented => message(status, error.message()),
    };
    if error.reason() == Reason::BadCredentials {
        let challenge = HeaderValue::from_static("Basic realm=\"Login Required\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = retry_after(error) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Whole seconds after which a refused request may be tried again, if that is any use.
pub(crate) fn retry_after(error: &Error) -> Option<u64> {
    let passes = matches!(error.reason(), Reason::TooManyAttempts | Reason::Overloaded | Reason::Unavailable);
    let wait = error.retry_after().or(passes.then_some(Duration::from_secs(1)))?;
    Some(1.max(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(error: Error) -> Option<u64> {
        let response = Refusal::from(error).into_response();
        response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().parse().unwrap())
    }

    #[test]
    fn waits_are_whole_seconds() {
        let after = |wait| header(Error::new(Reason::TooManyAttempts, "x").with_retry_after(wait));
        for (milliseconds, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            assert_eq!(after(Duration::from_millis(milliseconds)), Some(seconds));
        }
        assert_eq!(header(Error::new(Reason::Unavailable, "x")), Some(1));
        assert_eq!(header(Error::new(Reason::TokenExpired, "x")), None);
    }

    #[test]
    fn a_broken_connection_is_no_internal_error() {
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        assert_eq!(Refusal::from(broken).into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
        let faulty = Status::unknown("a panic");
        assert_eq!(Refusal::from(faulty).into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
