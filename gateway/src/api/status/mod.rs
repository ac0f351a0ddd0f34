//! `/api/status` and `/api/ready`: what a page shows of the state of the service.
//!
//! `/api/status` takes an access token, also in a cookie, or an API key, and `/api/ready` nothing. Operators use the metrics of the
//! admin ports. Errors are problem details (RFC 9457).

pub(crate) mod handlers;
pub(crate) mod schemas;

use axum::routing::get;

use super::routing::on_get;
use crate::{
    Cookies,
    auth::{ApiRouter, Credential, Routes},
    upstream::Upstream,
};

pub(crate) fn routes(upstream: Upstream, cookies: Cookies) -> ApiRouter {
    Routes::new(&upstream.verifier, cookies)
        .rejecting_cross_site()
        .route_with(Credential::AccessTokenOrKey, "/api/status", on_get(get(handlers::status)))
        .public_route("/api/ready", on_get(get(handlers::ready)))
        .with_state(upstream)
}
