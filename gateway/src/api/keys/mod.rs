//! `/api/keys` and `/api/key`: API keys, as `muse.v1.KeyService` offers them.
//!
//! Keys are managed with an access token, also in a cookie, unless a page of another site sends the
//! request. Errors are problem details (RFC 9457).

pub(crate) mod handlers;
pub(crate) mod schemas;

use axum::routing::get;

use super::routing::{method_not_allowed, on_get, with_methods};
use crate::{
    Cookies,
    auth::{ApiRouter, Credential, Routes},
    upstream::Upstream,
};

pub(crate) fn routes(upstream: Upstream, cookies: Cookies) -> ApiRouter {
    let keys = get(handlers::list).post(handlers::create);
    let key = get(handlers::retrieve).patch(handlers::update).delete(handlers::delete);
    Routes::new(&upstream.verifier, cookies)
        .rejecting_cross_site()
        .route("/api/keys", with_methods(keys, "GET, HEAD, OPTIONS, POST", method_not_allowed))
        .route("/api/keys/{id}", with_methods(key, "DELETE, GET, HEAD, OPTIONS, PATCH", method_not_allowed))
        .route_with(Credential::Key, "/api/key", on_get(get(handlers::describe)))
        .with_state(upstream)
}
