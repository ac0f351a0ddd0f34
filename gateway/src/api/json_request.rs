//! JSON bodies of the routes below `/api`.

use std::fmt;

use axum::{
    extract::Request,
    http::{StatusCode, request::Parts},
};
use muse_proto::{Error, Reason};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, Unexpected, Visitor},
};

use super::{limits::MAX_AUTH_REQUEST_BYTES, problem::Problem, request::read_body, routing::content_type};
use crate::{auth::User, upstream::Upstream};

/// A JSON object as the body of a request.
pub(super) trait JsonBody: DeserializeOwned {
    /// Fields that errors name. An unknown one may be a key or a password in the wrong place.
    const FIELDS: &'static [&'static str];
    /// The text of the error of another JSON value.
    const EXPECTED: &'static str = "a field is missing, unknown or of another type: see /openapi.json";
}

/// Reads a JSON object. The text of an error names the field, and does not quote the body, which may
/// contain a key or a password.
pub(super) async fn read_json<T: JsonBody>(
    upstream: &Upstream,
    user: &User,
    request: Request,
) -> Result<(Parts, T), Problem> {
    let (head, body) = request.into_parts();
    let is_json = content_type(&head.headers, &["application/json"]).is_some();
    let body = read_body(&upstream.request_memory, user.name(), &head, body, MAX_AUTH_REQUEST_BYTES).await?;
    if !is_json {
        let text = "The body must be JSON, with Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    // serde would accept an array with the values of the fields, too.
    if !body.bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Error::new(Reason::InvalidArgument, "the body is no JSON object").into());
    }
    let mut json = serde_json::Deserializer::from_slice(&body.bytes);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let parsed = parsed.map_err(|failure| {
        let field = failure.path().to_string();
        let text = if failure.inner().is_data() { T::EXPECTED } else { "the body is no JSON" };
        if T::FIELDS.contains(&&*field) {
            Error::new(Reason::InvalidArgument, format!("{field}: {text}")).with_field(field)
        } else {
            Error::new(Reason::InvalidArgument, text)
        }
    })?;
    json.end().map_err(|_| Error::new(Reason::InvalidArgument, "the body is no JSON"))?;
    Ok((head, parsed))
}

/// A property that may be absent; null only if `T` permits it.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A whole number, which JSON Schema also permits with a fraction of zero: `60.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct WholeNumber(pub(super) i64);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeNumberVisitor)
    }
}

struct WholeNumberVisitor;

impl Visitor<'_> for WholeNumberVisitor {
    type Value = WholeNumber;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<WholeNumber, E> {
        Ok(WholeNumber(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<WholeNumber, E> {
        let unexpected = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
        i64::try_from(number).map(WholeNumber).map_err(unexpected)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<WholeNumber, E> {
        /// Larger numbers are not exact.
        const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() == 0.0 && number.abs() <= MAX_EXACT {
            Ok(WholeNumber(number as i64))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_have_a_fraction_of_zero() {
        let parse = |json| serde_json::from_str::<WholeNumber>(json).ok().map(|WholeNumber(number)| number);
        for (json, expected) in [
            ("163115", 163_115),
            ("163115.0", 163_115),
            ("1.63115e5", 163_115),
            ("-1.0", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(parse(json), Some(expected), "{json}");
        }
        for json in ["0.5", "1e300", "-1e19", "18446744073709551615", "\"1\"", "true", "[1]", "null"] {
            assert_eq!(parse(json), None, "{json}");
        }
    }
}
