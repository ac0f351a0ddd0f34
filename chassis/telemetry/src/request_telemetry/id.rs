//! Request ids, which identify a request in the logs of all services.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::TraceId;

use crate::trace::unique;

/// The header of the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of an id from a caller; longer ids are ignored.
const MAX_LENGTH: usize = 128;

/// The id of a request: the caller's, or that of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId {
    value: HeaderValue,
    is_of_trace: bool,
}

impl RequestId {
    /// The caller's id, if it is safe in a log line.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let id = headers.get(REQUEST_ID)?;
        let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:~+/=@".contains(byte);
        ((1..=MAX_LENGTH).contains(&id.len()) && id.as_bytes().iter().all(is_safe))
            .then(|| Self { value: unique(id.clone()), is_of_trace: false })
    }

    pub(super) fn of_trace(trace: TraceId) -> Self {
        let value = HeaderValue::try_from(trace.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { value: unique(value), is_of_trace: true }
    }

    /// Adds it to the headers of a response.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.value.clone());
    }

    /// Adds it to the headers of a call to another service, unless that derives it from the trace.
    pub(super) fn forward(&self, headers: &mut HeaderMap) {
        if !self.is_of_trace {
            self.put(headers);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.value.to_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_with_unsafe_characters_is_ignored() {
        let accepted = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, value)])).map(|id| id.to_string())
        };
        for id in ["a", "0123-4567_89.ab:cd~e+f/g=h@i", &"x".repeat(128)] {
            assert_eq!(accepted(id.as_bytes()).as_deref(), Some(id));
        }
        for invalid in ["", " ", "a b", "a\tb", "a\"b", "a,b", "{x}", &"x".repeat(129), "é"] {
            assert_eq!(accepted(invalid.as_bytes()), None, "{invalid:?}");
        }
        assert_eq!(RequestId::of(&HeaderMap::new()), None);
    }
}
