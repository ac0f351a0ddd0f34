//! The outcome of a request.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};
use opentelemetry::KeyValue;
use tonic::{Code, Status};

/// The status of an HTTP request that its client cancelled: 499, as in nginx; the standard has
/// none.
const CLIENT_CLOSED_REQUEST: &str = "499";

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A gRPC call.
    Call(Code),
    /// Another request.
    Http(StatusCode),
    /// An HTTP request that its client cancelled before the response.
    Cancelled,
}

impl End {
    /// The outcome of a call with these trailers.
    pub(super) fn of_trailers(trailers: &HeaderMap) -> Self {
        Self::Call(Status::from_header_map(trailers).map_or(Code::Unknown, |status| status.code()))
    }

    /// The label in metrics and logs.
    pub(super) fn name(self) -> Cow<'static, str> {
        match self {
            Self::Call(code) => name_of(code).into(),
            Self::Http(status) => status.as_u16().to_string().into(),
            Self::Cancelled => CLIENT_CLOSED_REQUEST.into(),
        }
    }

    /// Whether the service is at fault, by the conventions of OpenTelemetry.
    pub(super) fn is_fault(self) -> bool {
        match self {
            Self::Call(code) => matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ),
            Self::Http(status) => status.is_server_error(),
            Self::Cancelled => false,
        }
    }

    /// The attribute of the span.
    pub(super) fn attribute(self) -> Option<KeyValue> {
        match self {
            Self::Call(code) => Some(KeyValue::new("rpc.grpc.status_code", code as i64)),
            Self::Http(status) => {
                Some(KeyValue::new("http.response.status_code", i64::from(status.as_u16())))
            }
            Self::Cancelled => None,
        }
    }
}

/// The name of a gRPC status, as in its specification.
pub(crate) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
