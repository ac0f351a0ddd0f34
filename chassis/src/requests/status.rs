//! How a request has ended.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};
use opentelemetry::KeyValue;
use tonic::{Code, Status};

/// The status of an HTTP request whose client has gone; there is none in the standard, and this is what many write.
const CLIENT_GONE: &str = "499";

/// How a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A call of gRPC.
    Call(Code),
    /// Any other request.
    Http(StatusCode),
    /// A request of HTTP whose client has gone before the answer.
    Gone,
}

impl End {
    /// That of a call with these trailers.
    pub(super) fn of_trailers(trailers: &HeaderMap) -> Self {
        Self::Call(Status::from_header_map(trailers).map_or(Code::Unknown, |status| status.code()))
    }

    /// As metrics and logs name it.
    pub(super) fn name(self) -> Cow<'static, str> {
        match self {
            Self::Call(code) => name_of(code).into(),
            Self::Http(status) => status.as_u16().to_string().into(),
            Self::Gone => CLIENT_GONE.into(),
        }
    }

    /// Whether it is a fault of the service rather than of its caller, by OpenTelemetry's conventions.
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
            Self::Gone => false,
        }
    }

    /// As the span of the request says it.
    pub(super) fn attribute(self) -> Option<KeyValue> {
        match self {
            Self::Call(code) => Some(KeyValue::new("rpc.grpc.status_code", code as i64)),
            Self::Http(status) => {
                Some(KeyValue::new("http.response.status_code", i64::from(status.as_u16())))
            }
            Self::Gone => None,
        }
    }
}

/// The name of a status of gRPC, as its specification writes it.
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
