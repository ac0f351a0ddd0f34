//! The REST routes of the service that this one replaces, by its rules: path, method, token, then arguments.

pub(crate) mod answer;
pub(crate) mod arguments;
mod auth;
mod cookies;
mod embedder;
mod form;
mod jwks;
mod npy;

use axum::{
    Router,
    extract::FromRef,
    http::{HeaderMap, Method, StatusCode, header},
    middleware::from_fn,
    response::Response,
    routing::{MethodRouter, get, post},
};

use crate::{
    client_address::X_FORWARDED_FOR,
    routing::{method_not_allowed, with_methods},
    upstream::Upstream,
};
use answer::message;
pub use cookies::Cookies;

/// Bytes of a body or a query of `/tokenize` and `/embed`.
pub(crate) const MAX_SENTENCES_BYTES: usize = 16 << 20;
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
        .route("/logout/access", on_post(with_access(cookies, post(auth::logout_access))))
        .route("/logout/refresh", on_post(with_refresh(cookies, post(auth::logout_refresh))))
        .route("/token/refresh", on_post(with_refresh(cookies, post(auth::refresh))))
        .route("/tokenize", on_both(with_access(cookies, get(embedder::tokenize).post(embedder::tokenize))))
        .route("/embed", on_both(with_access(cookies, get(embedder::embed).post(embedder::embed))))
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

fn with_access(cookies: Cookies, route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    if cookies == Cookies::Off { route } else { route.route_layer(from_fn(cookies::access)) }
}

fn with_refresh(cookies: Cookies, route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    if cookies == Cookies::Off { route } else { route.route_layer(from_fn(cookies::refresh)) }
}

fn on_post(route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    with_methods(route, "OPTIONS, POST", wrong_method)
}

fn on_both(route: MethodRouter<Rest>) -> MethodRouter<Rest> {
    with_methods(route, "GET, HEAD, OPTIONS, POST", wrong_method)
}

fn wrong_method(_: &Method) -> Response {
    message(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.")
}

/// A call with the token of the request that has these headers, if there is one, and the address of the client.
pub(crate) fn on_behalf_of<T>(headers: &HeaderMap, message: T) -> tonic::Request<T> {
    let mut call = tonic::Request::new(message);
    let metadata: &mut HeaderMap = call.metadata_mut().as_mut();
    for name in [header::AUTHORIZATION, X_FORWARDED_FOR] {
        for value in headers.get_all(&name) {
            metadata.append(&name, value.clone());
        }
    }
    call
}
