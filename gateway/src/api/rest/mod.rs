//! The REST routes of muse_as_service 1.1. Checks have its order: path, method, token, then arguments.

mod argument;
mod arguments;
pub(crate) mod auth;
pub(crate) mod embedder;
mod json_scalar;
pub(crate) mod jwks;
mod npy;
mod response;
mod response_format;
pub(crate) mod schemas;
mod tei;
mod token_json;

use axum::{
    extract::FromRef,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use muse_proto::Error;
use muse_verifier::TokenKind;

use super::routing::{on_get, with_methods};
use crate::{
    Cookies,
    auth::{ApiRouter, Credential, Routes},
    upstream::Upstream,
};
use response::{RestError, message};

/// The state of the routes.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    upstream: Upstream,
    cookies: Cookies,
}

impl FromRef<Rest> for Upstream {
    fn from_ref(rest: &Rest) -> Self {
        rest.upstream.clone()
    }
}

pub(crate) fn routes(upstream: Upstream, cookies: Cookies) -> ApiRouter {
    let refresh = Credential::Token(TokenKind::Refresh);
    let mut routes = Routes::new(&upstream.verifier, cookies)
        .route_with(
            Credential::AccessTokenOrKey,
            "/embed",
            on_both(get(embedder::embed).post(embedder::embed_many)),
        )
        .route_with(
            Credential::AccessTokenOrKey,
            "/tokenize",
            on_both(get(embedder::tokenize).post(embedder::tokenize_many)),
        )
        .route("/logout/access", on_post(post(auth::logout_access)))
        .route_with(refresh, "/logout/refresh", on_post(post(auth::logout_refresh)))
        .route_with(refresh, "/token/refresh", on_post(post(auth::refresh)))
        .public_route("/login", on_post(post(auth::login)))
        .public_route("/.well-known/jwks.json", on_get(get(jwks::jwks)));
    if cookies != Cookies::Off {
        // Public, because a request may have no valid token.
        routes = routes.public_route("/logout", on_post(post(auth::logout)));
    }
    routes.with_state(Rest { upstream, cookies })
}

fn on_post(route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    with_methods(route, "OPTIONS, POST", wrong_method)
}

fn on_both(route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    with_methods(route, "GET, HEAD, OPTIONS, POST", wrong_method)
}

/// An error of the table, in the format of muse_as_service 1.1.
pub(crate) fn to_response(error: Error) -> Response {
    RestError::from(error).into_response()
}

fn wrong_method(_: &Method) -> Response {
    message(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.")
}
