//! The REST routes of the service that this one replaces, by its rules: path, method, token, then arguments.

mod answer;
mod arguments;
mod auth;
mod embedder;
mod jwks;

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use muse_proto::{Error, Reason};
use tonic::Status;

use crate::{client_address::X_FORWARDED_FOR, upstream::Upstream};
use answer::message;

/// Bytes of a body or a query of `/tokenize` and `/embed`.
const MAX_SENTENCES_BYTES: usize = 16 << 20;
/// Bytes of a body of the other routes.
const MAX_BODY_BYTES: usize = 64 << 10;

pub(crate) fn routes(upstream: Upstream) -> Router {
    Router::new()
        .route("/login", on_post(auth::login))
        .route("/logout/access", on_post(auth::logout_access))
        .route("/logout/refresh", on_post(auth::logout_refresh))
        .route("/token/refresh", on_post(auth::refresh))
        .route("/tokenize", on_get(embedder::tokenize))
        .route("/embed", on_get(embedder::embed))
        .route("/.well-known/jwks.json", on_get(jwks::jwks))
        .with_state(upstream)
}

/// A call with the token of the request that has these headers, if there is one, and the address of the client.
fn on_behalf_of<T>(headers: &HeaderMap, message: T) -> tonic::Request<T> {
    let mut call = tonic::Request::new(message);
    let metadata: &mut HeaderMap = call.metadata_mut().as_mut();
    for name in [header::AUTHORIZATION, X_FORWARDED_FOR] {
        for value in headers.get_all(&name) {
            metadata.append(&name, value.clone());
        }
    }
    call
}

/// The answer where there is no route: in the terms of the protocol that was spoken.
pub(crate) async fn not_found(request: Request) -> Response {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let method = request.uri().path();
        return Status::from(Error::new(Reason::Unimplemented, format!("{method} is not a method here")))
            .into_http();
    }
    message(StatusCode::NOT_FOUND, "There is nothing at this path.")
}

fn on_post<H, T>(handler: H) -> MethodRouter<Upstream>
where
    H: Handler<T, Upstream>,
    T: 'static,
{
    with_fallback(axum::routing::post(handler), "OPTIONS, POST")
}

fn on_get<H, T>(handler: H) -> MethodRouter<Upstream>
where
    H: Handler<T, Upstream>,
    T: 'static,
{
    with_fallback(axum::routing::get(handler), "GET, HEAD, OPTIONS")
}

fn with_fallback(route: MethodRouter<Upstream>, allowed: &'static str) -> MethodRouter<Upstream> {
    route.fallback(async move |method: Method| {
        let mut response = if method == Method::OPTIONS {
            StatusCode::OK.into_response()
        } else {
            message(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL.")
        };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        response
    })
}
