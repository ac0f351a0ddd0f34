//! `/login`, `/logout/access`, `/logout/refresh` and `/token/refresh`.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use muse_proto::v1::{LoginRequest, RefreshTokenRequest, RevokeTokenRequest};
use muse_verifier::{TokenKind, bearer};
use serde_json::json;
use tonic::metadata::{Ascii, MetadataValue};

use super::{
    MAX_BODY_BYTES,
    answer::{Refusal, json},
    arguments::Arguments,
};
use crate::upstream::Upstream;

pub(super) async fn login(State(upstream): State<Upstream>, request: Request) -> Result<Response, Refusal> {
    let arguments = Arguments::read(request, MAX_BODY_BYTES).await?;
    let username = arguments.first("username")?;
    let password = arguments.first("password")?;
    let body_text = format!("Logged in as {username}");
    let tokens = upstream.auth_client().login(LoginRequest { username, password }).await?.into_inner();
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
    let call = with_token(RefreshTokenRequest {}, &headers)?;
    let token = upstream.auth_client().refresh_token(call).await?.into_inner();
    let body = json!({ "message": "Access token has been refreshed", "access_token": token.access_token });
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
    upstream.auth_client().revoke_token(with_token(RevokeTokenRequest {}, headers)?).await?;
    // The auth service tells every verifier; this one need not wait to hear it.
    upstream.verifier.revoke(&claims.jti, claims.exp);
    Ok(json(StatusCode::OK, &json!({ "message": done })))
}

/// A call that carries the token of `headers`.
fn with_token<T>(message: T, headers: &HeaderMap) -> Result<tonic::Request<T>, Refusal> {
    let value = bearer::authorization(headers);
    let token = bearer::token(value.as_deref())?;
    let mut call = tonic::Request::new(message);
    if let Ok(value) = MetadataValue::<Ascii>::try_from(format!("Bearer {token}")) {
        call.metadata_mut().insert("authorization", value);
    }
    Ok(call)
}
