//! The REST routes of the service that this one replaces, by its rules: path, method, token, then arguments.

mod arguments;
mod auth;
mod cookies;
mod embedder;
mod jwks;
mod npy;
mod response;
mod response_format;

use axum::{
    Router,
    extract::FromRef,
    http::{Method, StatusCode},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use muse_proto::Error;
use muse_verifier::TokenKind;

use crate::{
    routing::{method_not_allowed, with_methods},
    upstream::Upstream,
};
pub use cookies::Cookies;
use response::{RestError, message};

/// Bytes of a body of the other routes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// What the routes work with.
#[derive(Debug, Clone)]
struct Rest {
    upstream: Upstream,
    cookies: Cookies,
}

impl FromRef<Rest> for Upstream {
    fn from_ref(rest: &Rest) -> Self {
        rest.upstream.clone()
    }
}

pub(crate) fn routes(upstream: Upstream, cookies: Cookies) -> Router {
    let mut routes = Router::new()
        .route("/logout/access", on_post(with_token(TokenKind::Access, cookies, post(auth::logout_access))))
        .route(
            "/logout/refresh",
            on_post(with_token(TokenKind::Refresh, cookies, post(auth::logout_refresh))),
        )
        .route("/token/refresh", on_post(with_token(TokenKind::Refresh, cookies, post(auth::refresh))))
        .route(
            "/tokenize",
            on_both(with_token(TokenKind::Access, cookies, get(embedder::tokenize).post(embedder::tokenize))),
        )
        .route(
            "/embed",
            on_both(with_token(TokenKind::Access, cookies, get(embedder::embed).post(embedder::embed))),
        )
        .route("/login", on_post(post(auth::login)))
        .route(
            "/.well-known/jwks.json",
            with_methods(get(jwks::jwks), "GET, HEAD, OPTIONS", method_not_allowed),
        );
    if cookies != Cookies::Off {
        routes = routes.route("/logout", on_post(post(auth::logout)));
    }
    routes.with_state(Rest { upstream, cookies })
}

/// A route that needs a token of this kind, which may come in a cookie if there are any.
fn with_token(kind: TokenKind, cookies: Cookies, route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    match cookies {
        Cookies::Off => route,
        Cookies::On | Cookies::Secure => route.route_layer(from_fn_with_state(kind, cookies::token)),
    }
}

fn on_post(route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    with_methods(route, "OPTIONS, POST", wrong_method)
}

fn on_both(route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    with_methods(route, "GET, HEAD, OPTIONS, POST", wrong_method)
}

/// An error of the table, as clients of the old service know it.
pub(crate) fn refusal(error: Error) -> Response {
    RestError::from(error).into_response()
}

fn wrong_method(_: &Method) -> Response {
    message(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.")
}
