//! The model of an endpoint, as its health checks report it, and the checks of calls and responses against it.

use std::fmt;

use http::{HeaderMap, Response};
use muse_proto::{Error, FINGERPRINT, Fingerprint};
use tonic::{Status, body::Body};

/// The model that computes the vectors of an endpoint. Vectors of different models must not be mixed.
///
/// As an extension of a call it selects the endpoints with this model, whichever model is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelIdentity {
    /// The model with this fingerprint.
    Known(Fingerprint),
    /// The model of an embedder of a release that reports no fingerprint. All such embedders count as having the same model.
    Unreported,
}

impl fmt::Display for ModelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(fingerprint) => write!(f, "the fingerprint {fingerprint}"),
            Self::Unreported => f.write_str("no fingerprint (an older release)"),
        }
    }
}

impl ModelIdentity {
    /// The fingerprint, if it is known.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::Known(fingerprint) => Some(fingerprint),
            Self::Unreported => None,
        }
    }

    /// The fingerprint for the log, or `none`.
    pub(super) fn name(&self) -> &str {
        self.fingerprint().map_or("none", Fingerprint::as_str)
    }

    /// The model in the headers of a health check's response.
    pub(super) fn reported(headers: &HeaderMap) -> Self {
        Fingerprint::reported(headers).map_or(Self::Unreported, Self::Known)
    }

    /// Whether a response with these headers comes from another model: a process that was restarted on the same address, and whose
    /// health was not checked since.
    pub(super) fn differs_from(&self, headers: &HeaderMap) -> bool {
        match (self, Fingerprint::reported(headers)) {
            (Self::Known(expected), Some(found)) => *expected != found,
            (Self::Unreported, found) => found.is_some(),
            // Errors of the layers below a service have no fingerprint, and no vectors.
            (Self::Known(_), None) => !headers.contains_key(Status::GRPC_STATUS),
        }
    }

    /// Checks the fingerprint that a call requires.
    ///
    /// # Errors
    ///
    /// [`Reason::FingerprintMismatch`](muse_proto::Reason) if it is another one.
    pub(super) fn check(&self, required: Option<&Fingerprint>) -> Result<(), Error> {
        required.map_or(Ok(()), |required| required.check(self.fingerprint()))
    }

    /// The response to a call that was rejected for the sake of this model.
    pub(super) fn reject(&self, error: Error) -> Response<Body> {
        let mut response = Status::from(error).into_http();
        if let Some(fingerprint) = self.fingerprint() {
            response.headers_mut().insert(FINGERPRINT, fingerprint.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::Reason;

    use super::*;

    fn known(text: &str) -> ModelIdentity {
        ModelIdentity::Known(text.parse().unwrap())
    }

    #[test]
    fn response_of_another_model_is_recognised() {
        let (one, other) = ("f32-000000000001", "f32-000000000002");
        let headers = |value: Option<&str>| {
            value.map(|value| (FINGERPRINT, value.parse().unwrap())).into_iter().collect()
        };
        for (expected, found, differs) in [
            (known(one), Some(one), false),
            (known(one), Some(other), true),
            (known(one), None, true),
            (ModelIdentity::Unreported, Some(one), true),
            (ModelIdentity::Unreported, None, false),
        ] {
            assert_eq!(expected.differs_from(&headers(found)), differs, "{expected} {found:?}");
        }
        let error = Status::deadline_exceeded("x").into_http::<()>();
        assert!(!known(one).differs_from(error.headers()));
    }

    #[test]
    fn rejection_has_the_fingerprint_of_the_model() {
        let model = known("f32-000000000001");
        let required = "bf16-000000000001".parse().unwrap();
        let error = model.check(Some(&required)).unwrap_err();
        assert_eq!(error.reason(), Reason::FingerprintMismatch);
        assert_eq!(model.reject(error).headers()[FINGERPRINT], "f32-000000000001");
        let error = ModelIdentity::Unreported.check(Some(&required)).unwrap_err();
        assert_eq!(error.reason(), Reason::FingerprintMismatch);
        assert!(!ModelIdentity::Unreported.reject(error).headers().contains_key(FINGERPRINT));
        assert_eq!(model.check(None), Ok(()));
        assert_eq!(model.check(model.fingerprint()), Ok(()));
    }
}
