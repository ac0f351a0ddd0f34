//! Bodies of the answers: JSON objects in the shapes that clients of the old service know.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::{Error, Reason};
use serde::Serialize;
use serde_json::json;
use tonic::Status;
use tracing::error;

/// Seconds after which a refused request may be tried again.
const RETRY_AFTER: &str = "1";

/// A JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(failure) => {
            error!(%failure, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
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
        let error = Error::from(&status);
        if error.reason() == Reason::Internal {
            error!(%status, "a service behind the gateway failed");
        }
        Self::Error(error)
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
    let headers = |name, value| [(name, HeaderValue::from_static(value))];
    match error.reason() {
        Reason::BadCredentials => {
            let challenge = headers(header::WWW_AUTHENTICATE, "Basic realm=\"Login Required\"");
            (challenge, json(status, &json!({ "msg": error.message() }))).into_response()
        }
        Reason::TokenMissing
        | Reason::TokenMalformed
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenRevoked
        | Reason::TokenKind => json(status, &json!({ "msg": error.message() })),
        Reason::Overloaded | Reason::Unavailable => {
            (headers(header::RETRY_AFTER, RETRY_AFTER), message(status, error.message())).into_response()
        }
        // What went wrong inside is in the log.
        Reason::Internal => message(status, "Internal Server Error"),
        Reason::InvalidArgument | Reason::TooLarge | Reason::DeadlineExceeded | Reason::Unimplemented => {
            message(status, error.message())
        }
    }
}
