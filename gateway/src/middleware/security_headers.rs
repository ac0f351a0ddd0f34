//! Security headers for browsers, and `Cache-Control`.
//!
//! This is one layer in place of several `SetResponseHeaderLayer`s of tower-http: the values depend on the path and on TLS.

use axum::{extract::Request, response::Response};
use http::{HeaderName, HeaderValue, header};
use muse_telemetry::request_telemetry::is_call;

use crate::{
    middleware::{Around, Rejection, client_address::OverTls},
    page,
};

/// Nothing may be loaded: responses are data.
const DATA_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Swagger UI needs its own files, inline styles, and the images in its style sheet.
const SWAGGER_UI_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const SWAGGER_UI_PATH: &str = "/docs";
/// The page needs its own files, an icon in its text, and scripts of its own that compute in the background, which are the only ones
/// that it may create from a text.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types worker",
);
/// Paths whose responses do not depend on the caller. All others are not cached.
const PUBLIC_PATHS: [&str; 4] = [SWAGGER_UI_PATH, "/openapi.json", "/.well-known/", page::FILES_PATH];
/// Browsers use TLS only, for a year.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");
const FOR_ALL: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// The content security policy of a path, and whether it is public.
fn by_path(path: &str) -> (HeaderValue, bool) {
    let is_index = path == page::INDEX_PATH;
    let policy = if is_index || path.starts_with(page::FILES_PATH) {
        PAGE_POLICY
    } else if path.starts_with(SWAGGER_UI_PATH) {
        SWAGGER_UI_POLICY
    } else {
        DATA_POLICY
    };
    (policy, is_index || PUBLIC_PATHS.into_iter().any(|public| path.starts_with(public)))
}

/// Adds the headers, except to gRPC responses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecurityHeaders;

/// The properties of a request that the headers depend on.
#[derive(Debug)]
pub(crate) struct Context {
    over_tls: bool,
    policy: HeaderValue,
    public: bool,
}

impl Around for SecurityHeaders {
    type Context = Context;

    fn before(&self, request: &mut Request) -> Result<Context, Rejection> {
        let over_tls = request.extensions().get::<OverTls>().is_some();
        let (policy, public) = by_path(request.uri().path());
        Ok(Context { over_tls, policy, public })
    }

    fn after(Context { over_tls, policy, public }: Context, mut response: Response) -> Response {
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        let headers = response.headers_mut();
        if is_call(headers) {
            return response;
        }
        headers.extend(FOR_ALL);
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        if !public || is_error {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if over_tls {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
        }
        response
    }
}
