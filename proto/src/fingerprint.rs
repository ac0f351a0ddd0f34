//! The fingerprint of a model: a short id of what computes a vector, which responses contain and requests may require.

use std::{fmt, str::FromStr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Error, Reason};

/// The header of requests and responses over HTTP, and their metadata in gRPC.
///
/// In a response it is the fingerprint of the model of the embedder that responded. In a request it is a precondition: a service
/// with another model rejects the request with [`Reason::FingerprintMismatch`].
pub const FINGERPRINT: HeaderName = HeaderName::from_static("muse-fingerprint");

/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 12;
/// The length of the longest valid fingerprint. The longest name of a precision has four characters.
const MAX_BYTES: usize = 32;

/// The fingerprint of a model, such as `f32-3fa9c07b12de`: the precision of the forward pass, and 48 bits of a sha256 of the
/// weights, the tokenizer and the precision.
///
/// Vectors of models with the same fingerprint are equal up to rounding errors, whatever the device, the kernel or the batch. Vectors
/// of models with different fingerprints must not be compared with each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(Arc<str>);

/// The text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAFingerprint;

impl fmt::Display for NotAFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it must be a fingerprint, such as f32-3fa9c07b12de: a precision, '-', and 12 hexadecimal digits",
        )
    }
}

impl std::error::Error for NotAFingerprint {}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    /// Parses `[a-z0-9]+-[0-9a-f]{12}`.
    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let (precision, digits) = text.split_once('-').ok_or(NotAFingerprint)?;
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = text.len() <= MAX_BYTES
            && !precision.is_empty()
            && precision.bytes().all(is_name)
            && digits.len() == DIGITS
            && digits.bytes().all(is_digit);
        if valid { Ok(Self(text.into())) } else { Err(NotAFingerprint) }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Fingerprint> for HeaderValue {
    fn from(fingerprint: &Fingerprint) -> Self {
        Self::from_str(&fingerprint.0).expect("letters, digits and '-' are a header value")
    }
}

impl Fingerprint {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The fingerprint in the headers of a response, if there is a valid one. Services of releases without fingerprints send none.
    #[must_use]
    pub fn reported(headers: &HeaderMap) -> Option<Self> {
        headers.get(FINGERPRINT)?.to_str().ok()?.parse().ok()
    }

    /// The fingerprint that a request requires, if it requires one.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`] if a value is malformed, or there are different ones.
    pub fn required(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut required = None;
        for value in headers.get_all(FINGERPRINT) {
            let found: Self = value
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| invalid(&NotAFingerprint))?;
            if required.as_ref().is_some_and(|required| *required != found) {
                return Err(invalid(&"it must not have different values"));
            }
            required = Some(found);
        }
        Ok(required)
    }

    /// Checks the requirement of a request against the fingerprint of the model; `None` is that of a service that reports none.
    ///
    /// # Errors
    ///
    /// [`Reason::FingerprintMismatch`], with both fingerprints.
    pub fn check(&self, served: Option<&Self>) -> Result<(), Error> {
        let text = match served {
            Some(served) if served == self => return Ok(()),
            Some(served) => {
                format!("the request requires the fingerprint {self}, but the model has {served}")
            }
            None => format!(
                "the request requires the fingerprint {self}, but the embedder is of an older release, which reports none"
            ),
        };
        Err(Error::new(Reason::FingerprintMismatch, text))
    }
}

fn invalid(problem: &dyn fmt::Display) -> Error {
    Error::new(Reason::InvalidArgument, format!("{FINGERPRINT}: {problem}")).with_field(FINGERPRINT.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (FINGERPRINT, value.parse().unwrap())).collect()
    }

    #[test]
    fn fingerprint_is_a_precision_and_twelve_digits() {
        for valid in ["f32-3fa9c07b12de", "bf16-000000000000", "0-ffffffffffff"] {
            let fingerprint: Fingerprint = valid.parse().unwrap();
            assert_eq!(fingerprint.to_string(), valid);
            assert_eq!(HeaderValue::from(&fingerprint), valid);
        }
        for invalid in [
            "",
            "-",
            "f32",
            "f32-",
            "-3fa9c07b12de",
            "f32-3fa9c07b12d",
            "f32-3fa9c07b12def",
            "f32-3FA9C07B12DE",
            "F32-3fa9c07b12de",
            "f32-3fa9c07b12dg",
            "f-32-3fa9c07b12de",
            " f32-3fa9c07b12de",
            "f32-3fa9c07b12dé",
            "a_very_long_name_of_no_precision-3fa9c07b12de",
            "averyverylongnameofaprecision-3fa9c07b12de",
        ] {
            assert_eq!(invalid.parse::<Fingerprint>(), Err(NotAFingerprint), "{invalid}");
        }
    }

    #[test]
    fn malformed_requirement_is_invalid() {
        let one = "f32-3fa9c07b12de";
        assert_eq!(Fingerprint::required(&headers(&[])), Ok(None));
        assert_eq!(Fingerprint::required(&headers(&[one])), Ok(Some(one.parse().unwrap())));
        assert_eq!(Fingerprint::required(&headers(&[one, one])), Ok(Some(one.parse().unwrap())));
        for malformed in [&[""][..], &["x"], &[one, "x"], &[one, "f16-3fa9c07b12de"], &["f32-3fa9c07b12de,"]]
        {
            let error = Fingerprint::required(&headers(malformed)).unwrap_err();
            assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, Some("muse-fingerprint")));
            assert!(error.message().starts_with("muse-fingerprint: it must "), "{error}");
        }
        let bytes = HeaderMap::from_iter([(FINGERPRINT, HeaderValue::from_bytes(b"\xff").unwrap())]);
        assert_eq!(Fingerprint::required(&bytes).unwrap_err().reason(), Reason::InvalidArgument);
        assert_eq!(Fingerprint::reported(&bytes), None);
    }

    #[test]
    fn mismatch_names_both_fingerprints() {
        let (one, other): (Fingerprint, Fingerprint) =
            ("f32-3fa9c07b12de".parse().unwrap(), "f16-000000000000".parse().unwrap());
        assert_eq!(one.check(Some(&one)), Ok(()));
        let error = one.check(Some(&other)).unwrap_err();
        assert_eq!(error.reason(), Reason::FingerprintMismatch);
        assert!([&one, &other].iter().all(|named| error.message().contains(named.as_str())), "{error}");
        let error = one.check(None).unwrap_err();
        assert_eq!(error.reason(), Reason::FingerprintMismatch);
        assert!(error.message().contains("older release"), "{error}");
    }
}
