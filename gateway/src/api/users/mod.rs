//! `/api/users`: users, as `muse.v1.UserService` offers them, and the revocation of their tokens.
//!
//! Admins manage all users; others see themselves (`/api/user`), set their own password and revoke their own tokens. The access
//! token may be in a cookie, unless a page of another site sends the request. Errors are problem
//! details (RFC 9457).

pub(crate) mod handlers;
pub(crate) mod schemas;

use axum::routing::{delete, get};

use super::routing::{method_not_allowed, on_get, with_methods};
use crate::{
    Cookies,
    auth::{ApiRouter, Routes},
    upstream::Upstream,
};

pub(crate) fn routes(upstream: Upstream, cookies: Cookies) -> ApiRouter {
    let users = get(handlers::list).post(handlers::add);
    let user = get(handlers::retrieve).patch(handlers::update).delete(handlers::remove);
    let tokens = delete(handlers::revoke_tokens);
    Routes::new(&upstream.verifier, cookies)
        .rejecting_cross_site()
        .route("/api/users", with_methods(users, "GET, HEAD, OPTIONS, POST", method_not_allowed))
        .route(
            "/api/users/{name}",
            with_methods(user, "DELETE, GET, HEAD, OPTIONS, PATCH", method_not_allowed),
        )
        .route("/api/user", on_get(get(handlers::describe)))
        .route("/api/users/{name}/tokens", with_methods(tokens, "DELETE, OPTIONS", method_not_allowed))
        .with_state(upstream)
}
