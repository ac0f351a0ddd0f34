//! Methods and paths that are not there, in the terms of who asks.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use muse_proto::{Error, Reason};
use tonic::Status;

use crate::problem::Problem;

/// A route that tells its methods, and refuses others by `refusal`.
pub(crate) fn with_methods<S, R>(
    route: MethodRouter<S>,
    allowed: &'static str,
    refusal: fn(&Method) -> R,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    route.fallback(async move |method: Method| -> Response {
        let mut response = match method {
            Method::OPTIONS => StatusCode::OK.into_response(),
            _ => refusal(&method).into_response(),
        };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        response
    })
}

pub(crate) fn method_not_allowed(method: &Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed here"))
}

/// Whether the headers are those of a call of gRPC or gRPC-Web, or of its answer.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The answer where there is no route: in the terms of the protocol that was spoken.
pub(crate) async fn not_found(request: Request) -> Response {
    if is_grpc(request.headers()) {
        let method = request.uri().path();
        return Status::from(Error::new(Reason::Unimplemented, format!("{method} is not a method here")))
            .into_http();
    }
    Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path").into_response()
}
