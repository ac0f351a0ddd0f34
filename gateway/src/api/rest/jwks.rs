//! `/.well-known/jwks.json`: the public keys, for other verifiers of tokens (RFC 7517, RFC 8037).

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use muse_proto::v1::JsonWebKey;
use serde_json::{Value, json};

use super::schemas::Jwks;
use crate::{
    api::{
        http_response::json,
        problem::{Body, Problem},
    },
    upstream::{Upstream, unreachable},
};

/// Keys rarely change, and a new one is published some seconds before it is used.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=60");
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// The public keys
///
/// With them anyone can verify a token (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "Service",
    operation_id = "jwks",
    responses(
        (status = 200, description = "The keys", body = Jwks, content_type = "application/jwk-set+json"),
        (status = 503, description = "The service is not ready", body = Body<'static>,
            content_type = "application/problem+json",
            headers(("Retry-After" = u64, description = "Seconds to wait before a retry"))),
    ),
)]
pub(crate) async fn jwks(State(upstream): State<Upstream>) -> Result<Response, Problem> {
    if !upstream.verifier.synced() {
        return Err(unreachable().into());
    }
    let keys: Vec<Value> = upstream.verifier.published_keys().into_iter().map(jwk).collect();
    let mut response = json(StatusCode::OK, &json!({ "keys": keys }));
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    Ok(response)
}

fn jwk(key: JsonWebKey) -> Value {
    json!({
        "kty": key.kty,
        "crv": key.crv,
        "kid": key.kid,
        "x": key.x,
        "alg": key.alg,
        "use": key.r#use,
    })
}
