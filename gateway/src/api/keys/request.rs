//! The JSON bodies of these routes.

use axum::{
    extract::Request,
    http::{StatusCode, request::Parts},
};
use muse_proto::{Error, Reason};
use serde::de::DeserializeOwned;

use crate::{
    api::{limits::MAX_AUTH_REQUEST_BYTES, problem::Problem, request::read_body, routing::content_type},
    auth::User,
    upstream::Upstream,
};

/// Fields that errors name. An unknown one may be a key in the wrong place.
const FIELDS: [&str; 5] = ["name", "expires_in", "bulk", "user", "disabled"];

/// Reads a JSON object. The text of an error names the field, and does not quote the body: somebody
/// may have sent a key in it.
pub(super) async fn read_json<T: DeserializeOwned>(
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
    let mut json = serde_json::Deserializer::from_slice(&body.bytes);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let parsed = parsed.map_err(|failure| {
        let field = failure.path().to_string();
        let text = if failure.inner().is_data() {
            "a field is missing, unknown or of another type: see /openapi.json"
        } else {
            "the body is no JSON"
        };
        if FIELDS.contains(&&*field) {
            Error::new(Reason::InvalidArgument, format!("{field}: {text}")).with_field(field)
        } else {
            Error::new(Reason::InvalidArgument, text)
        }
    })?;
    json.end().map_err(|_| Error::new(Reason::InvalidArgument, "the body is no JSON"))?;
    Ok((head, parsed))
}
