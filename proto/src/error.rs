//! The table of errors: each reason with its gRPC code and HTTP status.
//!
//! A service returns an [`Error`]. On the wire it is a [`tonic::Status`] with the reason in `google.rpc.ErrorInfo`, from which the
//! gateway reads the same [`Error`] for its response over HTTP.

use std::{collections::HashMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of each `google.rpc.ErrorInfo`.
const DOMAIN: &str = "muse.v1";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident, $text:literal, $code:ident, $http:literal;)+) => {
        /// Why a call failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name in `google.rpc.ErrorInfo.reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The gRPC code.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)+ }
            }

            fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }
        }
    };
}

// The HTTP statuses of the token errors are those of the service that this one replaces.
reasons! {
    /// The request is malformed or an argument is missing.
    InvalidArgument, "INVALID_ARGUMENT", InvalidArgument, 400;
    /// The request is larger than a limit allows.
    TooLarge, "TOO_LARGE", InvalidArgument, 413;
    /// The user's name or password is wrong.
    BadCredentials, "BAD_CREDENTIALS", Unauthenticated, 401;
    /// The call carries no token.
    TokenMissing, "TOKEN_MISSING", Unauthenticated, 401;
    /// The `authorization` header is not of the form `Bearer <token>`.
    TokenMalformed, "TOKEN_MALFORMED", Unauthenticated, 422;
    /// The token was not issued by this service: signature, key, algorithm or a claim is wrong.
    TokenInvalid, "TOKEN_INVALID", Unauthenticated, 422;
    /// The token has expired.
    TokenExpired, "TOKEN_EXPIRED", Unauthenticated, 401;
    /// The token was revoked.
    TokenRevoked, "TOKEN_REVOKED", Unauthenticated, 401;
    /// A refresh token in place of an access token, or the reverse.
    TokenKind, "TOKEN_KIND", Unauthenticated, 422;
    /// The API key has a typing error: its form or its checksum is wrong.
    KeyMalformed, "KEY_MALFORMED", Unauthenticated, 401;
    /// There is no such API key, or its secret is wrong.
    KeyUnknown, "KEY_UNKNOWN", Unauthenticated, 401;
    /// The API key was deleted, or its owner was removed or disabled.
    KeyRevoked, "KEY_REVOKED", Unauthenticated, 401;
    /// The API key has expired.
    KeyExpired, "KEY_EXPIRED", Unauthenticated, 401;
    /// The API key is disabled.
    KeyDisabled, "KEY_DISABLED", Unauthenticated, 401;
    /// The caller may not do this.
    PermissionDenied, "PERMISSION_DENIED", PermissionDenied, 403;
    /// There is no such user.
    NoSuchUser, "NO_SUCH_USER", NotFound, 404;
    /// There is no such API key, or it belongs to somebody else.
    NoSuchKey, "NO_SUCH_KEY", NotFound, 404;
    /// There is no such model.
    NoSuchModel, "NO_SUCH_MODEL", NotFound, 404;
    /// There is a user of this name already.
    UserExists, "USER_EXISTS", AlreadyExists, 409;
    /// The last administrator cannot be removed.
    LastAdmin, "LAST_ADMIN", FailedPrecondition, 409;
    /// The user has as many API keys as allowed.
    TooManyKeys, "TOO_MANY_KEYS", FailedPrecondition, 409;
    /// The request requires another fingerprint than that of the model.
    FingerprintMismatch, "FINGERPRINT_MISMATCH", FailedPrecondition, 412;
    /// Too many failed logins, of this user or from this address.
    TooManyAttempts, "TOO_MANY_ATTEMPTS", ResourceExhausted, 429;
    /// The service is overloaded, or a limit is exceeded.
    Overloaded, "OVERLOADED", ResourceExhausted, 429;
    /// The caller's quota of tokens is used up until its period ends.
    QuotaExhausted, "QUOTA_EXHAUSTED", ResourceExhausted, 429;
    /// A required service does not respond, or is not ready yet.
    Unavailable, "UNAVAILABLE", Unavailable, 503;
    /// The caller's deadline has passed.
    DeadlineExceeded, "DEADLINE_EXCEEDED", DeadlineExceeded, 504;
    /// The method does not exist.
    Unimplemented, "UNIMPLEMENTED", Unimplemented, 404;
    /// An internal error. The details are in the log of the service.
    Internal, "INTERNAL", Internal, 500;
}

/// A failed call: the reason, a text for the caller, the invalid field, and the wait before a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    reason: Reason,
    message: String,
    field: Option<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error with a text for the caller.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: None, retry_after: None }
    }

    /// Adds the invalid field of the request, with its index: `sentences[3]` (`google.rpc.BadRequest`).
    #[must_use]
    pub fn with_field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Adds the wait before a retry (`google.rpc.RetryInfo`, `Retry-After`).
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Why the call failed.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The text for the caller.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The invalid field of the request, if known.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The wait before a retry, if known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut details = ErrorDetails::with_error_info(error.reason.as_str(), DOMAIN, HashMap::new());
        if error.retry_after.is_some() {
            details.set_retry_info(error.retry_after);
        }
        if let Some(field) = error.field {
            details.add_bad_request_violation(field, &error.message);
        }
        Status::with_error_details(error.reason.code(), error.message, details)
    }
}

impl From<&Status> for Error {
    /// The error that [`From<Error> for Status`] encoded; a foreign status is mapped by its code.
    fn from(status: &Status) -> Self {
        let named = status
            .get_details_error_info()
            .filter(|info| info.domain == DOMAIN)
            .and_then(|info| Reason::from_name(&info.reason));
        let reason = named.unwrap_or(match status.code() {
            Code::InvalidArgument => Reason::InvalidArgument,
            Code::OutOfRange => Reason::TooLarge,
            Code::Unauthenticated => Reason::TokenInvalid,
            Code::PermissionDenied => Reason::PermissionDenied,
            Code::ResourceExhausted => Reason::Overloaded,
            Code::Unavailable | Code::Cancelled => Reason::Unavailable,
            Code::DeadlineExceeded => Reason::DeadlineExceeded,
            Code::Unimplemented => Reason::Unimplemented,
            _ => Reason::Internal,
        });
        let retry_after = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
        let field = status
            .get_details_bad_request()
            .and_then(|violated| Some(violated.field_violations.into_iter().next()?.field));
        Self { reason, message: status.message().to_owned(), field, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_round_trips_through_status() {
        for &reason in Reason::ALL {
            let error = Error::new(reason, "a text");
            let status = Status::from(error.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Error::from(&status), error);
        }
        let later = Error::new(Reason::Overloaded, "full").with_retry_after(Duration::from_millis(1500));
        assert_eq!(Error::from(&Status::from(later.clone())), later);
        let named = Error::new(Reason::TooLarge, "too long").with_field("sentences[3]");
        assert_eq!(Error::from(&Status::from(named.clone())), named);
    }

    #[test]
    fn foreign_status_is_mapped_by_its_code() {
        let error = Error::from(&Status::unavailable("tcp connect error"));
        assert_eq!(error, Error::new(Reason::Unavailable, "tcp connect error"));
        assert_eq!(Error::from(&Status::data_loss("x")).reason(), Reason::Internal);
    }
}
