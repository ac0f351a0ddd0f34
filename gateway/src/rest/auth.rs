//! `/login`, `/logout`, `/logout/access`, `/logout/refresh` and `/token/refresh`.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use muse_proto::v1::{LoginRequest, RefreshTokenRequest, RevokeTokenRequest};
use muse_verifier::TokenKind;
use serde_json::json;
use tonic::Code;

use super::{
    MAX_BODY_BYTES, Rest,
    arguments::{Arguments, Wanted},
    cookies::{self, Jar},
    response::{RestError, message},
};
use crate::{client_address, http_response::json, request::on_behalf_of, upstream::Upstream};

const CREDENTIALS: &[Wanted] = &[Wanted::First("username"), Wanted::First("password")];

pub(super) async fn login(State(rest): State<Rest>, request: Request) -> Result<Response, RestError> {
    let jar = Jar::of(rest.cookies, &request);
    let call = on_behalf_of(request.headers(), ());
    let memory = &rest.upstream.request_memory;
    let caller = client_address::name(request.headers());
    let mut arguments = Arguments::read(request, CREDENTIALS, MAX_BODY_BYTES, memory, &caller).await?;
    let username = arguments.first("username")?;
    let password = arguments.first("password")?;
    let body_text = format!("Logged in as {username}");
    let call = call.map(|()| LoginRequest { username, password });
    let tokens = rest.upstream.auth_client().login(call).await?.into_inner();
    let body = json!({
        "message": body_text,
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
    });
    let mut response = json(StatusCode::OK, &body);
    jar.put(&mut response, TokenKind::Access, &tokens.access_token);
    jar.put(&mut response, TokenKind::Refresh, &tokens.refresh_token);
    Ok(response)
}

pub(super) async fn refresh(State(rest): State<Rest>, request: Request) -> Result<Response, RestError> {
    let jar = Jar::of(rest.cookies, &request);
    rest.upstream.verifier.authorize(request.headers(), Some(TokenKind::Refresh))?;
    let call = on_behalf_of(request.headers(), RefreshTokenRequest {});
    let tokens = rest.upstream.auth_client().refresh_token(call).await?.into_inner();
    let mut body =
        json!({ "message": "Access token has been refreshed", "access_token": tokens.access_token });
    // Only where refresh tokens rotate.
    if !tokens.refresh_token.is_empty() {
        body["refresh_token"] = tokens.refresh_token.as_str().into();
    }
    let mut response = json(StatusCode::OK, &body);
    jar.put(&mut response, TokenKind::Access, &tokens.access_token);
    if !tokens.refresh_token.is_empty() {
        jar.put(&mut response, TokenKind::Refresh, &tokens.refresh_token);
    }
    Ok(response)
}

/// Ends both tokens in the cookies; the old service only had them forgotten.
pub(super) async fn logout(State(rest): State<Rest>, request: Request) -> Result<Response, RestError> {
    let jar = Jar::of(rest.cookies, &request);
    let headers = request.headers();
    for kind in [TokenKind::Access, TokenKind::Refresh] {
        let Some(token) = cookies::value(headers, cookies::name(kind)) else { continue };
        let Ok(credentials) = cookies::bearer(token) else { continue };
        let mut of_cookie = headers.clone();
        of_cookie.insert(header::AUTHORIZATION, credentials);
        match revoke(&rest.upstream, &of_cookie, kind).await {
            Err(RestError::Error(error)) if error.reason().code() != Code::Unauthenticated => {
                return Err(error.into());
            }
            // What does not hold needs no end.
            _ => (),
        }
    }
    let mut response = message(StatusCode::OK, "Logged out");
    jar.clear(&mut response, TokenKind::Access);
    jar.clear(&mut response, TokenKind::Refresh);
    Ok(response)
}

pub(super) async fn logout_access(
    State(rest): State<Rest>,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    revoke(&rest.upstream, &headers, TokenKind::Access).await?;
    Ok(message(StatusCode::OK, "Access token has been revoked"))
}

pub(super) async fn logout_refresh(
    State(rest): State<Rest>,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    revoke(&rest.upstream, &headers, TokenKind::Refresh).await?;
    Ok(message(StatusCode::OK, "Refresh token has been revoked"))
}

async fn revoke(upstream: &Upstream, headers: &HeaderMap, kind: TokenKind) -> Result<(), RestError> {
    let claims = upstream.verifier.authorize(headers, Some(kind))?;
    upstream.auth_client().revoke_token(on_behalf_of(headers, RevokeTokenRequest {})).await?;
    upstream.revoked(&claims);
    Ok(())
}
