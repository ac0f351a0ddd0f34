//! OpenAI's API for embeddings: `/v1/embeddings` and `/v1/models`, with an API key of this service or an access token
//! as the API key.

pub(crate) mod embeddings;
mod input;
pub(crate) mod models;
pub(crate) mod response;

use axum::{
    http::{Method, Uri},
    routing::{any, get, post},
};
use muse_proto::{Error, Reason};

use super::routing::with_methods;
use crate::{
    Cookies,
    auth::{ApiRouter, Credential, Routes},
    upstream::Upstream,
};
use response::OpenAiError;

pub(crate) fn routes(upstream: Upstream) -> ApiRouter {
    Routes::new(&upstream.verifier, Cookies::Off)
        .route_with(
            Credential::AccessTokenOrKey,
            "/v1/embeddings",
            with_methods(post(embeddings::create), "OPTIONS, POST", OpenAiError::method_not_allowed),
        )
        .route_with(
            Credential::AccessTokenOrKey,
            "/v1/models",
            with_methods(get(models::list), "GET, HEAD, OPTIONS", OpenAiError::method_not_allowed),
        )
        .route_with(
            Credential::AccessTokenOrKey,
            "/v1/models/{model}",
            with_methods(get(models::retrieve), "GET, HEAD, OPTIONS", OpenAiError::method_not_allowed),
        )
        .public_route("/v1/{*path}", any(not_found))
        .with_state(upstream)
}

async fn not_found(method: Method, uri: Uri) -> OpenAiError {
    let text = format!("There is nothing at {method} {}", uri.path());
    Error::new(Reason::Unimplemented, text).into()
}
