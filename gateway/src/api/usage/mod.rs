//! `/api/usage`: who used the service how much, as `muse.v1.UsageService` lists it.
//!
//! It takes an access token, also in a cookie, or an API key, which sees its own usage only. Errors
//! are problem details (RFC 9457).

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
    let usage = on_get(get(handlers::list));
    Routes::new(&upstream.verifier, cookies)
        .rejecting_cross_site()
        .route_with(Credential::AccessTokenOrKey, "/api/usage", usage)
        .with_state(upstream)
}
