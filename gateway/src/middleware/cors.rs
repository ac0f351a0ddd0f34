//! Which web pages of other origins may call the service: none, unless they are listed.

use std::{convert::Infallible, str::FromStr, time::Duration};

use axum::{extract::Request, response::Response};
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Method, Uri, header};
use muse_telemetry::request_telemetry::REQUEST_ID;
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{api::server_timing::SERVER_TIMING, middleware::Detour};

/// How long a browser may remember what it was allowed.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The origins whose pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// These; there may be none.
    Listed(Vec<HeaderValue>),
    /// All, but without cookies.
    Any,
}

impl FromStr for AllowedOrigins {
    type Err = String;

    /// Reads `*`, or origins (`https://example.org`) with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        if entries.clone().eq(["*"]) {
            return Ok(Self::Any);
        }
        entries.map(origin).collect::<Result<_, _>>().map(Self::Listed)
    }
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text.parse::<Uri>().is_ok_and(|uri| {
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
        // As a browser writes it, or it would never be equal: no path, no user, lower case.
        text == format!("{scheme}://{authority}").to_ascii_lowercase() && !authority.as_str().contains('@')
    });
    let value = HeaderValue::try_from(text).ok().filter(|_| is_origin);
    value.ok_or_else(|| format!("'{text}' is no origin: one is https://example.org, without a path"))
}

impl AllowedOrigins {
    /// The layer that answers browsers' questions; none if no page may read anything.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let origins = match self {
            Self::Listed(origins) if origins.is_empty() => return None,
            Self::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
            Self::Any => AllowOrigin::any(),
        };
        let [status, message, details] =
            ["grpc-status", "grpc-message", "grpc-status-details-bin"].map(HeaderName::from_static);
        Some(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_credentials(matches!(self, Self::Listed(_)))
                .allow_methods([Method::GET, Method::HEAD, Method::POST])
                // Clients send headers of their own: OpenAI's SDK dozens of `x-stainless-*`. None of them is worth refusing to a
                // page that may send a token.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers([SERVER_TIMING, REQUEST_ID, header::RETRY_AFTER, status, message, details])
                .max_age(MAX_AGE),
        )
    }
}

/// Has the layer answer what browsers ask for pages of other origins. All other requests, an OPTIONS of another kind
/// too, go on as they are.
#[derive(Debug, Clone)]
pub(crate) struct Cors(pub(crate) Option<CorsLayer>);

impl Detour for Cors {
    fn applies(&self, request: &Request) -> bool {
        self.0.is_some() && request.headers().contains_key(header::ORIGIN)
    }

    fn serve<S>(&self, request: Request, inner: S) -> BoxFuture<'static, Response>
    where
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let cors = self.0.clone().unwrap_or_default().layer(inner);
        async move {
            let Ok(response) = cors.oneshot(request).await;
            response
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        let listed = |origins: &[&'static str]| {
            Ok(AllowedOrigins::Listed(
                origins.iter().map(|origin| HeaderValue::from_static(origin)).collect(),
            ))
        };
        assert_eq!("".parse(), listed(&[]));
        assert_eq!(" * ".parse(), Ok(AllowedOrigins::Any));
        let two = "https://example.org, http://localhost:8080,";
        assert_eq!(two.parse(), listed(&["https://example.org", "http://localhost:8080"]));
        for bad in [
            "example.org",
            "https://example.org/",
            "https://Example.org",
            "https://a@b.org",
            "*, https://a.org",
        ] {
            let refused = bad.parse::<AllowedOrigins>().unwrap_err();
            assert!(refused.contains("is no origin"), "{bad}: {refused}");
        }
    }
}
