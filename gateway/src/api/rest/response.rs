//! Error responses in the format of muse_as_service 1.1.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::{Error, Reason};
use serde_json::{Value, json};
use tonic::Status;

use crate::{
    api::{
        http_response::{json, retry_after, set_retry_after, should_retry, status, text},
        request::{BodyError, with_remedy},
    },
    upstream::failure,
};

/// `{"message": text}`.
pub(super) fn message(status: StatusCode, text: &str) -> Response {
    json(status, &json!({ "message": text }))
}

/// An error response.
#[derive(Debug)]
pub(crate) enum RestError {
    /// A required argument is missing.
    Blank(&'static str),
    /// The body is not JSON, though its content type is; with the error, if an object has begun.
    NotJson(Option<String>),
    /// An error of the table.
    Error(Error),
    /// An error of the table, in the response to a request of text-embeddings-inference.
    Tei(Error),
    /// The body did not arrive, or cannot be decoded.
    Body(BodyError),
}

impl From<BodyError> for RestError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Error(error) => Self::Error(error),
            other => Self::Body(other),
        }
    }
}

impl RestError {
    /// The error in the response to a request of text-embeddings-inference: with the field `error`,
    /// the only one that huggingface_hub shows.
    pub(super) fn for_tei(self) -> Self {
        match self {
            Self::Error(error) => Self::Tei(error),
            other => other,
        }
    }

    /// Adds advice to the error of a request with sentences that exceeds a limit.
    pub(super) fn with_remedy(self) -> Self {
        match self {
            Self::Error(error) => Self::Error(with_remedy(error)),
            other => other,
        }
    }
}

impl From<Error> for RestError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Status> for RestError {
    fn from(status: Status) -> Self {
        Self::Error(failure(&status))
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        match self {
            Self::Blank(field) => {
                let body = json!({ "message": { field: "This field cannot be blank" } });
                json(StatusCode::BAD_REQUEST, &body)
            }
            Self::NotJson(detail) => {
                let text = "The browser (or proxy) sent a request that this server could not understand.";
                let mut body = json!({ "message": text });
                if let Some(detail) = detail {
                    body["detail"] = detail.into();
                }
                json(StatusCode::BAD_REQUEST, &body)
            }
            Self::Body(error) => match error.response() {
                Ok((status, text, headers)) => {
                    let mut response = message(status, text);
                    response.headers_mut().extend(headers);
                    response
                }
                Err(error) => from_table(error, |text| json!({ "message": text })),
            },
            Self::Error(error) => from_table(&error, |text| json!({ "message": text })),
            Self::Tei(error) => from_table(&error, |text| json!({ "message": text, "error": text })),
        }
    }
}

/// The response to an error; `body` makes the body of a text that is not about credentials. With the
/// status 429, which muse_as_service 1.1 did not have, the body also has the reason.
fn from_table(error: &Error, body: impl FnOnce(&str) -> Value) -> Response {
    let status = status(error);
    let mut response = match error.reason() {
        Reason::BadCredentials
        | Reason::TokenMissing
        | Reason::TokenMalformed
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenRevoked
        | Reason::TokenKind
        | Reason::KeyMalformed
        | Reason::KeyUnknown
        | Reason::KeyRevoked
        | Reason::KeyExpired
        | Reason::KeyDisabled => json(status, &json!({ "msg": error.message() })),
        Reason::Internal
        | Reason::InvalidArgument
        | Reason::TooLarge
        | Reason::PermissionDenied
        | Reason::NoSuchUser
        | Reason::NoSuchKey
        | Reason::NoSuchModel
        | Reason::UserExists
        | Reason::LastAdmin
        | Reason::TooManyKeys
        | Reason::FingerprintMismatch
        | Reason::Unavailable
        | Reason::DeadlineExceeded
        | Reason::Unimplemented => json(status, &body(text(error))),
        Reason::TooManyAttempts | Reason::Overloaded | Reason::QuotaExhausted => {
            let mut body = body(text(error));
            body["reason"] = error.reason().as_str().into();
            json(status, &body)
        }
    };
    if error.reason() == Reason::BadCredentials {
        let challenge = HeaderValue::from_static("Basic realm=\"Login Required\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    set_retry_after(&mut response, retry_after(error));
    response.headers_mut().extend(should_retry(error));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn header(error: Error) -> Option<u64> {
        let response = RestError::from(error).into_response();
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
    fn broken_connection_is_unavailable_not_internal() {
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        assert_eq!(RestError::from(broken).into_response().status(), StatusCode::SERVICE_UNAVAILABLE);
        let faulty = Status::unknown("a panic");
        assert_eq!(RestError::from(faulty).into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
