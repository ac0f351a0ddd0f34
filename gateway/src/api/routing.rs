//! Error responses of unknown methods and paths, and of rejected requests, in the format of the API.

use std::borrow::Cow;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use muse_proto::{Error, Reason};
use muse_telemetry::request_telemetry::{OTHER, is_call, route};
use tonic::Status;

use super::{openai, problem::Problem, request::read_out, rest};

/// A route that responds to OPTIONS, and rejects other methods with `reject`. Both responses have `Allow`.
pub(crate) fn with_methods<S, R>(
    route: MethodRouter<S>,
    allowed: &'static str,
    reject: fn(&Method) -> R,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    route.fallback(async move |method: Method| -> Response {
        let mut response = match method {
            Method::OPTIONS => StatusCode::OK.into_response(),
            _ => reject(&method).into_response(),
        };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        response
    })
}

/// A route for GET alone, whose errors are problem details.
pub(crate) fn on_get<S: Clone + Send + Sync + 'static>(route: MethodRouter<S>) -> MethodRouter<S> {
    with_methods(route, "GET, HEAD, OPTIONS", method_not_allowed)
}

pub(crate) fn method_not_allowed(method: &Method) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not allowed here"))
}

/// The route of a request in metrics, traces and the log.
pub(crate) fn route_of(request: &Parts) -> Cow<'static, str> {
    match request.extensions.get::<MatchedPath>() {
        _ if is_call(&request.headers) => route(request.uri.path()).into(),
        Some(route) => route.as_str().to_owned().into(),
        None => OTHER.into(),
    }
}

/// The error response to a request, in the format of the API that its path belongs to. The body is read first, for a limited time,
/// so that a client of HTTP/1.1 that is still sending gets the response.
pub(crate) async fn error_response(request: Request, error: Error) -> Response {
    if is_call(request.headers()) {
        return Status::from(error).into_http();
    }
    let path = request.uri().path();
    let (is_openai, is_own) = (path.starts_with("/v1/"), path.starts_with("/api/"));
    read_out(request.into_body()).await;
    if is_openai {
        openai::response::OpenAiError::from(error).into_response()
    } else if is_own {
        Problem::from(error).into_response()
    } else {
        rest::to_response(error)
    }
}

/// The content type of a request among `known`, compared without case and parameters.
pub(crate) fn content_type(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    known.iter().copied().find(|name| essence.eq_ignore_ascii_case(name.as_bytes()))
}

/// The response to an unknown path.
pub(crate) async fn not_found(request: Request) -> Response {
    if is_call(request.headers()) {
        let method = request.uri().path();
        return Status::from(Error::new(Reason::Unimplemented, format!("{method} is not a method here")))
            .into_http();
    }
    Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path").into_response()
}
