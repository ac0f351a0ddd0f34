//! `/login`, `/logout`, `/logout/access`, `/logout/refresh` and `/token/refresh`.

use axum::{
    extract::{Request, State},
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use muse_proto::v1::{LoginRequest, RefreshTokenRequest, RevokeTokenRequest};
use muse_verifier::{Claims, TokenKind};
use serde_json::json;
use tonic::Code;

use super::{
    Rest,
    argument::Wanted,
    arguments::Arguments,
    response::{RestError, message},
    schemas::{Failed, LoggedIn, Login, Refreshed, Refused, Said, TokenErrors},
};
use crate::{
    api::{
        http_response::json,
        limits::{MAX_AUTH_REQUEST_BYTES, UNSUPPORTED_ENCODING},
        request::on_behalf_of,
    },
    auth::User,
    cookies::{self, Jar},
    middleware::client_address,
    upstream::Upstream,
};

const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");
const CREDENTIALS: &[Wanted] = &[Wanted::First("username"), Wanted::First("password")];

/// Log in
///
/// Exchanges a name and a password for tokens, in the body and in cookies. Failed logins are throttled.
#[utoipa::path(
    post,
    path = "/login",
    tag = "Tokens",
    operation_id = "login",
    request_body(content((Login = "application/json"), (Login = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The tokens", body = LoggedIn),
        (status = 400, description = "An argument is missing or malformed", body = Failed),
        (status = 401, description = "The name or the password is wrong", body = Refused,
            headers(("WWW-Authenticate" = String))),
        (status = 408, description = "The body did not arrive in time", body = Failed),
        (status = 413, description = format!("The body is larger than {} KiB", MAX_AUTH_REQUEST_BYTES >> 10), body = Failed),
        (status = 415, description = UNSUPPORTED_ENCODING, body = Failed),
        (status = 429, description = "Too many failed logins, of this name or from this address, or too many logins or open requests", body = Failed,
            headers(("Retry-After" = u64, description = "Seconds to wait before a retry"))),
        (status = 500, description = "An internal error", body = Failed),
        (status = 503, description = "The auth service is unavailable", body = Failed,
            headers(("Retry-After" = u64, description = "Seconds to wait before a retry"))),
        (status = 504, description = "The deadline has passed", body = Failed),
    ),
)]
pub(crate) async fn login(State(rest): State<Rest>, request: Request) -> Response {
    let of_script = is_of_script(request.headers());
    let mut response = log_in(rest, request).await.into_response();
    if of_script && response.headers().contains_key(header::WWW_AUTHENTICATE) {
        // Browsers show a dialog of their own for `Basic`, before the script gets the response.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Whether the script of a page in a browser has sent the request, by the header that such scripts send by convention. Fetch Metadata
/// would show it without the script's help, but browsers send it to secure origins only.
fn is_of_script(headers: &HeaderMap) -> bool {
    headers.get(X_REQUESTED_WITH).is_some_and(|with| with == "XMLHttpRequest")
}

async fn log_in(rest: Rest, request: Request) -> Result<Response, RestError> {
    let jar = Jar::of(rest.cookies, &request);
    let call = on_behalf_of(request.headers(), request.extensions(), ());
    let memory = &rest.upstream.request_memory;
    let caller = client_address::client_of(request.headers());
    let mut arguments =
        Arguments::read(request, CREDENTIALS, MAX_AUTH_REQUEST_BYTES, memory, &caller).await?;
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

/// Refresh the access token
#[utoipa::path(
    post,
    path = "/token/refresh",
    tag = "Tokens",
    operation_id = "refreshToken",
    responses((status = 200, description = "The token", body = Refreshed), TokenErrors),
    security(("refresh_token" = []), ("refresh_token_cookie" = [])),
)]
pub(crate) async fn refresh(State(rest): State<Rest>, request: Request) -> Result<Response, RestError> {
    let jar = Jar::of(rest.cookies, &request);
    let call = on_behalf_of(request.headers(), request.extensions(), RefreshTokenRequest {});
    let tokens = rest.upstream.auth_client().refresh_token(call).await?.into_inner();
    let mut body =
        json!({ "message": "Access token has been refreshed", "access_token": tokens.access_token });
    // Only if refresh tokens rotate.
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

/// Log out, with cookies
///
/// Revokes the valid tokens among the cookies, and deletes the cookies.
#[utoipa::path(
    post,
    path = "/logout",
    tag = "Tokens",
    operation_id = "logout",
    responses(
        (status = 200, description = "The tokens are revoked, and the cookies are deleted", body = Said),
        (status = 500, description = "An internal error", body = Failed),
        (status = 503, description = "The auth service is unavailable", body = Failed),
        (status = 504, description = "The deadline has passed", body = Failed),
    ),
    security(("access_token_cookie" = [], "refresh_token_cookie" = []), ()),
)]
pub(crate) async fn logout(State(rest): State<Rest>, request: Request) -> Result<Response, RestError> {
    let jar = Jar::of(rest.cookies, &request);
    let (head, _) = request.into_parts();
    for kind in [TokenKind::Access, TokenKind::Refresh] {
        let Some(token) = cookies::value(&head.headers, cookies::name(kind)) else { continue };
        let Ok(credentials) = cookies::bearer(token) else { continue };
        let mut of_cookie = head.headers.clone();
        of_cookie.insert(header::AUTHORIZATION, credentials);
        let revoked = async {
            let claims = rest.upstream.verifier.verify(token, Some(kind))?;
            claims.record(&head.extensions);
            revoke(&rest.upstream, &of_cookie, &head.extensions, &claims).await
        };
        match revoked.await {
            Err(RestError::Error(error)) if error.reason().code() != Code::Unauthenticated => {
                return Err(error.into());
            }
            // An invalid token need not be revoked.
            _ => (),
        }
    }
    let mut response = message(StatusCode::OK, "Logged out");
    jar.clear(&mut response, TokenKind::Access);
    jar.clear(&mut response, TokenKind::Refresh);
    Ok(response)
}

/// Revoke the access token
#[utoipa::path(
    post,
    path = "/logout/access",
    tag = "Tokens",
    operation_id = "logoutAccess",
    responses((status = 200, description = "It is revoked", body = Said), TokenErrors),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn logout_access(
    State(rest): State<Rest>,
    user: User,
    head: Parts,
) -> Result<Response, RestError> {
    revoke(&rest.upstream, &head.headers, &head.extensions, user.claims()?).await?;
    Ok(message(StatusCode::OK, "Access token has been revoked"))
}

/// Revoke the refresh token
#[utoipa::path(
    post,
    path = "/logout/refresh",
    tag = "Tokens",
    operation_id = "logoutRefresh",
    responses((status = 200, description = "It is revoked", body = Said), TokenErrors),
    security(("refresh_token" = []), ("refresh_token_cookie" = [])),
)]
pub(crate) async fn logout_refresh(
    State(rest): State<Rest>,
    user: User,
    head: Parts,
) -> Result<Response, RestError> {
    revoke(&rest.upstream, &head.headers, &head.extensions, user.claims()?).await?;
    Ok(message(StatusCode::OK, "Refresh token has been revoked"))
}

/// Revokes the token in these headers, whose claims were verified.
async fn revoke(
    upstream: &Upstream,
    headers: &HeaderMap,
    extensions: &Extensions,
    claims: &Claims,
) -> Result<(), RestError> {
    let call = on_behalf_of(headers, extensions, RevokeTokenRequest {});
    upstream.auth_client().revoke_token(call).await?;
    upstream.revoke(claims);
    Ok(())
}
