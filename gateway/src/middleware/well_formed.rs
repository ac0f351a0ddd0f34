//! Rejects requests that are malformed for every route.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Version, header},
    response::Response,
};
use muse_proto::{Error, Reason};

use super::{Around, Rejection};
use crate::api::{problem::Problem, routing::content_type};

/// The checks of this module, for [`AroundLayer`](super::AroundLayer).
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

/// Rejects requests of HTTP/1.1 without exactly one Host header (RFC 9112, section 3.2).
fn require_host(request: &Request) -> Result<(), Rejection> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let least = usize::from(request.version() == Version::HTTP_11);
    if (least..=1).contains(&hosts) {
        return Ok(());
    }
    let text = "The request must have one Host header";
    Err(Rejection::Error(Error::new(Reason::InvalidArgument, text)))
}

/// Rejects calls of gRPC methods with another content type than gRPC's (gRPC over HTTP/2, "Requests"). gRPC-Web was already
/// translated. JSON inside gRPC is not supported.
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
