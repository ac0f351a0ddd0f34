//! `/login`, `/logout/access`, `/logout/refresh` and `/token/refresh`.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use muse_proto::v1::{LoginRequest, RefreshTokenRequest, RevokeTokenRequest};
use muse_verifier::TokenKind;
use serde_json::json;

use super::{
    MAX_BODY_BYTES,
    answer::{Refusal, json},
    arguments::Arguments,
    on_behalf_of,
};
use crate::upstream::Upstream;

pub(super) async fn login(State(upstream): State<Upstream>, request: Request) -> Result<Response, Refusal> {
    let call = on_behalf_of(request.headers(), ());
    let arguments = Arguments::read(request, MAX_BODY_BYTES).await?;
    let username = arguments.first("username")?;
    let password = arguments.first("password")?;
    let body_text = format!("Logged in as {username}");
    let call = call.map(|()| LoginRequest { username, password });
    let tokens = upstream.auth_client().login(call).await?.into_inner();
    let body = json!({
        "message": body_text,
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
    });
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn refresh(
    State(upstream): State<Upstream>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    upstream.verifier.authorize(&headers, Some(TokenKind::Refresh))?;
    let call = on_behalf_of(&headers, RefreshTokenRequest {});
    let tokens = upstream.auth_client().refresh_token(call).await?.into_inner();
    let mut body =
        json!({ "message": "Access token has been refreshed", "access_token": tokens.access_token });
    // Only where refresh tokens rotate.
    if !tokens.refresh_token.is_empty() {
        body["refresh_token"] = tokens.refresh_token.into();
    }
    Ok(json(StatusCode::OK, &body))
}

pub(super) async fn logout_access(
    State(upstream): State<Upstream>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    revoke(&upstream, &headers, TokenKind::Access, "Access token has been revoked").await
}

pub(super) async fn logout_refresh(
    State(upstream): State<Upstream>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    revoke(&upstream, &headers, TokenKind::Refresh, "Refresh token has been revoked").await
}

async fn revoke(
    upstream: &Upstream,
    headers: &HeaderMap,
    kind: TokenKind,
    done: &str,
) -> Result<Response, Refusal> {
    let claims = upstream.verifier.authorize(headers, Some(kind))?;
    upstream.auth_client().revoke_token(on_behalf_of(headers, RevokeTokenRequest {})).await?;
    upstream.revoked(&claims);
    Ok(json(StatusCode::OK, &json!({ "message": done })))
}
