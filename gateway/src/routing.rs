//! Methods and paths that are not there, in the terms of who asks.

use std::borrow::Cow;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, request::Parts},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use muse_chassis::request_telemetry::{OTHER, is_call, route};
use muse_proto::{Error, Reason};
use tonic::Status;

use crate::{
    middleware::{Around, Rejection},
    openai,
    problem::Problem,
    request::read_out,
    rest,
};

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

/// The route that a request has matched, as metrics, traces and the log name it.
pub(crate) fn route_of(request: &Parts) -> Cow<'static, str> {
    match request.extensions.get::<MatchedPath>() {
        _ if is_call(&request.headers) => route(request.uri.path()).into(),
        Some(route) => route.as_str().to_owned().into(),
        None => OTHER.into(),
    }
}

/// Rejects a request, in the terms of the API that its path belongs to. The body is read to its end, for a while, so that a client
/// of HTTP/1.1 that is still sending gets the answer.
pub(crate) async fn refusal(request: Request, error: Error) -> Response {
    if is_call(request.headers()) {
        return Status::from(error).into_http();
    }
    let is_openai = request.uri().path().starts_with("/v1/");
    read_out(request.into_body()).await;
    if is_openai { openai::response::OpenAiError::from(error).into_response() } else { rest::refusal(error) }
}

/// Rejects requests that are malformed whatever their route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WellFormed;

impl Around for WellFormed {
    type Context = ();

    fn before(&self, request: &mut Request) -> Result<(), Rejection> {
        require_host(request)?;
        require_grpc(request)
    }

    fn after((): (), response: Response) -> Response {
        response
    }
}

/// Rejects requests of HTTP/1.1 that do not name one host (RFC 9112, section 3.2).
fn require_host(request: &Request) -> Result<(), Rejection> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let least = usize::from(request.version() == Version::HTTP_11);
    if (least..=1).contains(&hosts) {
        return Ok(());
    }
    let text = "The request must have one Host header";
    Err(Rejection::Error(Error::new(Reason::InvalidArgument, text)))
}

/// Rejects calls of gRPC methods in other content types than gRPC's (its protocol over HTTP/2, "Requests"). gRPC-Web is translated
/// before. JSON inside gRPC is not served.
fn require_grpc(request: &Request) -> Result<(), Rejection> {
    let path = request.uri().path();
    let is_method = path.starts_with("/muse.v1.") || path.starts_with("/grpc.");
    if !is_method || request.method() != Method::POST || is_grpc(request.headers()) {
        return Ok(());
    }
    let text = "gRPC methods are served as application/grpc or application/grpc-web";
    Err(Rejection::Problem(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers, &["application/grpc", "application/grpc+proto"]).is_some()
}

/// That of these content types which a request has, whatever its case and parameters.
pub(crate) fn content_type(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    known.iter().copied().find(|name| essence.eq_ignore_ascii_case(name.as_bytes()))
}

/// The answer where there is no route: in the terms of the protocol that was spoken.
pub(crate) async fn not_found(request: Request) -> Response {
    if is_call(request.headers()) {
        let method = request.uri().path();
        return Status::from(Error::new(Reason::Unimplemented, format!("{method} is not a method here")))
            .into_http();
    }
    Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_has_two_content_types() {
        let accepted =
            |kind: &str| is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]));
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
            assert!(accepted(kind), "{kind}");
        }
        for kind in ["application/grpcx", "application/grpc+json", "text/plain", "application/json", ""] {
            assert!(!accepted(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
