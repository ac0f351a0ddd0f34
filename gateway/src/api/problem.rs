//! Errors as problem details (RFC 9457), on the routes that muse_as_service 1.1 did not have.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::{Error, Reason};
use serde::Serialize;
use tonic::Status;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{self, Header, RefOr},
};

use crate::{
    api::{
        http_response::{json, retry_after, set_retry_after, standard_status, text},
        openapi::error_responses,
        request::{BodyError, Headers},
    },
    upstream::failure,
};

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error response with problem details.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    reason: Option<Reason>,
    field: Option<String>,
    /// Seconds.
    retry_after: Option<u64>,
    /// Other headers of the response.
    headers: Headers,
}

/// Why a request failed (RFC 9457). `type` is omitted: the status is sufficient.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    /// As in `google.rpc.ErrorInfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    /// An error of HTTP, which has no [`Reason`].
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            reason: None,
            field: None,
            retry_after: None,
            headers: Vec::new(),
        }
    }

    /// An internal error, whose details are logged.
    pub(crate) fn fault() -> Self {
        Error::new(Reason::Internal, "").into()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            status: standard_status(&error),
            detail: text(&error).to_owned(),
            reason: Some(error.reason()),
            field: error.field().map(str::to_owned),
            retry_after: retry_after(&error),
            headers: Vec::new(),
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error.response() {
            Ok((status, text, headers)) => Self { headers, ..Self::new(status, text) },
            Err(error) => error.clone().into(),
        }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        failure(&status).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            reason: self.reason.map(Reason::as_str),
            field: self.field.as_deref(),
        };
        let mut response = json(self.status, &body);
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        set_retry_after(&mut response, self.retry_after);
        response.headers_mut().extend(self.headers);
        response
    }
}

/// Responses with problem details, by status.
pub(super) fn problems(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let mut responses = error_responses::<Body<'_>>("application/problem+json", statuses);
    if let Some(RefOr::T(response)) = responses.get_mut("401") {
        response.headers.insert("WWW-Authenticate".to_owned(), Header::default().into());
    }
    responses
}

/// The errors of a route of the auth service: its own, and those that all of them have.
pub(super) fn route_problems(own: &[(u16, &str)]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let mut responses = problems(&[
        (500, "A fault of the service"),
        (503, "The auth service is unreachable, or has been for too long to verify tokens"),
        (504, "The deadline has passed"),
    ]);
    responses.extend(problems(own));
    responses
}

/// The errors of routes with a body.
pub(crate) struct BodyErrors;

impl IntoResponses for BodyErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[
            (408, "The body did not arrive in time"),
            (413, "The body is larger than 64 KiB"),
            (415, "The body is not JSON, or has a Content-Encoding other than gzip, deflate and zstd"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn shown(problem: Problem) -> (u16, Value) {
        let response = problem.into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn problem_contains_the_known_fields() {
        let error = Error::new(Reason::TooLarge, "too long").with_field("sentences[3]");
        let body = json!({
            "title": "Payload Too Large", "status": 413, "detail": "too long",
            "reason": "TOO_LARGE", "field": "sentences[3]",
        });
        assert_eq!(shown(error.into()).await, (413, body));
        let unauthorized = Problem::from(Error::new(Reason::TokenMalformed, "x")).into_response();
        assert_eq!(
            (unauthorized.status().as_u16(), &unauthorized.headers()[header::WWW_AUTHENTICATE]),
            (401, &HeaderValue::from_static("Bearer"))
        );
        let (status, body) = shown(Problem::fault()).await;
        assert_eq!((status, &body["detail"]), (500, &json!("Internal Server Error")));
        let body = json!({ "title": "Not Found", "status": 404, "detail": "x" });
        assert_eq!(shown(Problem::new(StatusCode::NOT_FOUND, "x")).await, (404, body));
    }
}
