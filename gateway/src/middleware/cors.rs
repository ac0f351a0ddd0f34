//! CORS: which web pages of other origins may call the service. By default none.

use std::{convert::Infallible, str::FromStr, time::Duration};

use axum::{extract::Request, response::Response};
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Method, Uri, header};
use muse_proto::FINGERPRINT;
use muse_telemetry::request_telemetry::REQUEST_ID;
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    api::{http_response::X_SHOULD_RETRY, server_timing::SERVER_TIMING},
    middleware::{Detour, QUOTA_HEADERS},
};

/// How long a browser may cache the response to a preflight request.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The origins whose pages may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// The listed ones; the list may be empty.
    Listed(Vec<HeaderValue>),
    /// All, but without cookies.
    Any,
}

impl FromStr for AllowedOrigins {
    type Err = String;

    /// Parses `*`, or origins (`https://example.org`), separated by commas.
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
        // Browsers send origins without path and user, in lower case; another one would never match.
        text == format!("{scheme}://{authority}").to_ascii_lowercase() && !authority.as_str().contains('@')
    });
    let value = HeaderValue::try_from(text).ok().filter(|_| is_origin);
    value.ok_or_else(|| format!("'{text}' is no origin: one is https://example.org, without a path"))
}

impl AllowedOrigins {
    /// The layer, if there are allowed origins.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let origins = match self {
            Self::Listed(origins) if origins.is_empty() => return None,
            Self::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
            Self::Any => AllowOrigin::any(),
        };
        let [status, message, details] =
            ["grpc-status", "grpc-message", "grpc-status-details-bin"].map(HeaderName::from_static);
        let mut exposed = vec![SERVER_TIMING, REQUEST_ID, header::RETRY_AFTER, status, message, details];
        exposed.extend([X_SHOULD_RETRY, FINGERPRINT]);
        exposed.extend(QUOTA_HEADERS);
        Some(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_credentials(matches!(self, Self::Listed(_)))
                .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
                // Clients send headers of their own (OpenAI's SDK dozens of `x-stainless-*`), and a page that may send a token
                // may send any.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(exposed)
                .max_age(MAX_AGE),
        )
    }
}

/// Applies the layer to the requests of web pages. All other requests, also OPTIONS without an origin, bypass it.
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
    fn origins_are_parsed_in_the_form_of_browsers() {
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
            let error = bad.parse::<AllowedOrigins>().unwrap_err();
            assert!(error.contains("is no origin"), "{bad}: {error}");
        }
    }
}
