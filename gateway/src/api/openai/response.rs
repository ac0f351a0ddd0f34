//! Errors in the format of OpenAI's API, whose clients raise exceptions by the status.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::{Error, Reason};
use serde::Serialize;
use tonic::Status;
use utoipa::{IntoResponses, ToSchema, openapi::RefOr};

use crate::{
    api::{
        http_response::{json, retry_after, set_retry_after, should_retry, standard_status, text},
        limits::{FINGERPRINT_MISMATCH, UNSUPPORTED_ENCODING},
        openapi,
        request::{BodyError, Headers},
    },
    upstream::failure,
};

/// An error in the format of OpenAI's API.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "OpenAI error")]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// Why a request failed.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// The text for the user.
    #[schema(example = "input[3]: 8193 tokens; the limit is 8192 a sentence")]
    message: String,
    /// The class of the error.
    r#type: ErrorType,
    /// The field of the request that is at fault, with its index.
    #[schema(required = true, example = "input[3]")]
    param: Option<String>,
    /// The reason, for programs.
    #[schema(required = true, example = json!(null))]
    code: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
enum ErrorType {
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    #[serde(rename = "insufficient_quota")]
    InsufficientQuota,
    #[serde(rename = "server_error")]
    Server,
}

/// The errors of these routes, for the OpenAPI document.
pub(super) struct Errors;

impl IntoResponses for Errors {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        openapi::errors::<ErrorBody>(&[
            (400, "The request is malformed, or a field is missing or invalid"),
            (401, "The key is neither a valid API key nor a valid access token"),
            (404, "There is no such model"),
            (408, "The body did not arrive in time"),
            (412, FINGERPRINT_MISMATCH),
            (413, "The request is larger than a limit allows"),
            (415, UNSUPPORTED_ENCODING),
            (
                429,
                "The service is overloaded, a limit on open requests is exceeded, or the quota is exhausted",
            ),
            (500, "An internal error"),
            (503, "The service is not ready"),
            (504, "The deadline has passed"),
        ])
    }
}

/// An error response.
#[derive(Debug)]
pub(crate) struct OpenAiError {
    status: StatusCode,
    detail: ErrorDetail,
    /// Seconds.
    retry_after: Option<u64>,
    /// Other headers of the response.
    headers: Headers,
}

impl From<BodyError> for OpenAiError {
    fn from(error: BodyError) -> Self {
        match error.response() {
            Ok((status, text, headers)) => {
                let r#type = ErrorType::InvalidRequest;
                let detail = ErrorDetail { message: text.to_owned(), r#type, param: None, code: None };
                Self { status, detail, retry_after: None, headers }
            }
            Err(error) => error.clone().into(),
        }
    }
}

impl OpenAiError {
    /// The error of a method that the route does not have.
    pub(super) fn method_not_allowed(method: &axum::http::Method) -> Self {
        let message = format!("{method} is not allowed here");
        let r#type = ErrorType::InvalidRequest;
        let detail = ErrorDetail { message, r#type, param: None, code: Some("method_not_allowed") };
        Self { status: StatusCode::METHOD_NOT_ALLOWED, detail, retry_after: None, headers: Vec::new() }
    }
}

impl From<Error> for OpenAiError {
    fn from(error: Error) -> Self {
        let status = standard_status(&error);
        let r#type = match status {
            _ if error.reason() == Reason::QuotaExhausted => ErrorType::InsufficientQuota,
            StatusCode::TOO_MANY_REQUESTS => ErrorType::RateLimit,
            status if status.is_server_error() => ErrorType::Server,
            _ => ErrorType::InvalidRequest,
        };
        let code = match error.reason() {
            Reason::NoSuchModel => Some("model_not_found"),
            Reason::FingerprintMismatch => Some("fingerprint_mismatch"),
            Reason::Overloaded => Some("rate_limit_exceeded"),
            Reason::QuotaExhausted => Some("insufficient_quota"),
            _ if status == StatusCode::UNAUTHORIZED => Some("invalid_api_key"),
            _ => None,
        };
        let message = text(&error).to_owned();
        let detail = ErrorDetail { message, r#type, param: error.field().map(str::to_owned), code };
        let headers = should_retry(&error).into_iter().collect();
        Self { status, detail, retry_after: retry_after(&error), headers }
    }
}

impl From<Status> for OpenAiError {
    fn from(status: Status) -> Self {
        failure(&status).into()
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &ErrorBody { error: self.detail });
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        set_retry_after(&mut response, self.retry_after);
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn shown(error: Error) -> (u16, ErrorType, Option<&'static str>) {
        let error = OpenAiError::from(error);
        (error.status.as_u16(), error.detail.r#type, error.detail.code)
    }

    #[test]
    fn each_reason_has_an_openai_status() {
        for &reason in Reason::ALL {
            let (status, r#type, _) = shown(Error::new(reason, "x"));
            let expected = if reason.code() == Code::Unauthenticated { 401 } else { reason.http_status() };
            assert_eq!(status, expected, "{reason:?}");
            assert_eq!(r#type == ErrorType::Server, status >= 500, "{reason:?}");
        }
        let expired = shown(Error::new(Reason::TokenExpired, "Token has expired"));
        assert_eq!(expired, (401, ErrorType::InvalidRequest, Some("invalid_api_key")));
        let mismatch = shown(Error::new(Reason::FingerprintMismatch, "x"));
        assert_eq!(mismatch, (412, ErrorType::InvalidRequest, Some("fingerprint_mismatch")));
        let full = shown(Error::new(Reason::Overloaded, "full"));
        assert_eq!(full, (429, ErrorType::RateLimit, Some("rate_limit_exceeded")));
        let exhausted = shown(Error::new(Reason::QuotaExhausted, "exhausted"));
        assert_eq!(exhausted, (429, ErrorType::InsufficientQuota, Some("insufficient_quota")));
    }

    #[test]
    fn retry_after_is_sent_and_internal_details_are_not() {
        let response = OpenAiError::from(Error::new(Reason::Overloaded, "full")).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(!response.headers().contains_key("x-should-retry"));
        let wait = std::time::Duration::from_millis(3_599_500);
        let exhausted = Error::new(Reason::QuotaExhausted, "exhausted").with_retry_after(wait);
        let response = OpenAiError::from(exhausted).into_response();
        let header = |name| response.headers()[name].to_str().unwrap();
        assert_eq!((header("retry-after"), header("x-should-retry")), ("3600", "false"));
        let fault = OpenAiError::from(Error::new(Reason::Internal, "a secret"));
        assert!(!fault.detail.message.contains("secret"));
    }
}
