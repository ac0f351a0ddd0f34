//! The gRPC proxy for the services of muse.v1: the gateway verifies the token of a call, reads its message, and forwards both
//! unchanged, so a method that is added to the proto needs no code here. Only headers that the services use are forwarded.
//!
//! A unary call ends at the caller's deadline, or at the timeout of the service. The response to a stream
//! ([`stream`]) begins at once, and has no timeout.

mod message;
pub(crate) mod reflection;
mod stream;
mod stream_shutdown;

use std::{
    error::Error as StdError,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::{MethodRouter, post},
};
use http::{HeaderMap, HeaderName, header};
use http_body_util::{BodyExt, Full};
use muse_balancer::is_timeout;
use muse_proto::{Error, FINGERPRINT};
use muse_server::deadline;
use muse_verifier::{Claims, TokenKind};
use tonic::{Code, Status};
use tower::{Service, ServiceExt};
use tracing::debug;

use super::{
    limits::{MAX_AUTH_REQUEST_BYTES, MAX_REQUEST_BYTES},
    request::{BODY_WITHIN, NEXT_PART_WITHIN},
    response_memory::{self, ReservedBody},
    routing::{method_not_allowed, with_methods},
};
use crate::{
    Cookies,
    auth::{ApiRouter, Credential, Routes, User},
    middleware::client_address::{self, X_FORWARDED_FOR},
    upstream::{Upstream, unreachable},
};
use message::{Message, MessageLimits};

/// The headers of a caller that are forwarded. The client adds the request id and the trace.
const FORWARDED: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::TE,
    deadline::GRPC_TIMEOUT,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    X_FORWARDED_FOR,
    FINGERPRINT,
];
/// Timeout of the message of a call to the auth service.
const AUTH_BODY_WITHIN: Duration = Duration::from_secs(10);
/// The limits of the auth service, whose largest message is a name and a password.
const AUTH_MESSAGE: MessageLimits =
    MessageLimits { bytes: MAX_AUTH_REQUEST_BYTES, next_part: AUTH_BODY_WITHIN, whole: AUTH_BODY_WITHIN };

pub(crate) fn routes(upstream: Upstream) -> ApiRouter {
    let token_or_key = Credential::AccessTokenOrKey;
    // A method that is added to the proto requires an access token: an API key does not permit it.
    Routes::new(&upstream.verifier, Cookies::Off)
        .public_route("/muse.v1.AuthService/Login", on_post(post(login)))
        .route_with(
            Credential::Token(TokenKind::Refresh),
            "/muse.v1.AuthService/RefreshToken",
            on_post(post(to_auth)),
        )
        .route_with(Credential::AnyToken, "/muse.v1.AuthService/RevokeToken", on_post(post(revoke)))
        .route("/muse.v1.AuthService/{method}", on_post(post(to_auth)))
        .route_with(Credential::Key, "/muse.v1.KeyService/DescribeKey", on_post(post(to_auth)))
        .route("/muse.v1.KeyService/{method}", on_post(post(to_auth)))
        .route_with(token_or_key, "/muse.v1.UsageService/ListUsage", on_post(post(to_auth)))
        .route("/muse.v1.UsageService/{method}", on_post(post(to_auth)))
        .route("/muse.v1.UserService/{method}", on_post(post(to_auth)))
        .route_with(token_or_key, "/muse.v1.EmbedderService/EmbedStream", on_post(post(embed_stream)))
        .route_with(token_or_key, "/muse.v1.EmbedderService/Embed", on_post(post(to_embedder)))
        .route_with(token_or_key, "/muse.v1.EmbedderService/Tokenize", on_post(post(to_embedder)))
        .route_with(token_or_key, "/muse.v1.EmbedderService/GetModel", on_post(post(to_embedder)))
        .route_with(token_or_key, "/muse.v1.EmbedderService/GetStatus", on_post(post(to_embedder)))
        .route("/muse.v1.EmbedderService/{method}", on_post(post(to_embedder)))
        .with_state(upstream)
}

fn on_post(route: MethodRouter<Upstream>) -> MethodRouter<Upstream> {
    with_methods(route, "OPTIONS, POST", method_not_allowed)
}

fn method_of(call: &Request) -> &str {
    call.uri().path().rsplit('/').next().unwrap_or_default()
}

async fn login(State(upstream): State<Upstream>, call: Request) -> Response {
    let address = client_address::client_of(call.headers());
    or_status(forward_to_auth(&upstream, &address, call).await)
}

async fn to_auth(State(upstream): State<Upstream>, user: User, call: Request) -> Response {
    or_status(forward_to_auth(&upstream, user.name(), call).await)
}

async fn embed_stream(State(upstream): State<Upstream>, _: User, call: Request) -> Response {
    stream::forward_stream(upstream, forwardable(call))
}

async fn to_embedder(State(upstream): State<Upstream>, user: User, call: Request) -> Response {
    or_status(forward_to_embedder(&upstream, user.name(), call).await)
}

/// As [`to_auth`]. The gateway rejects the revoked token from the response on.
async fn revoke(State(upstream): State<Upstream>, user: User, call: Request) -> Response {
    or_status(match user.claims() {
        Ok(claims) => forward_revocation(&upstream, claims, call).await,
        Err(error) => Err(error),
    })
}

/// Forwards a unary call to the embedders. The memory of the response is reserved before.
async fn forward_to_embedder(upstream: &Upstream, caller: &str, call: Request) -> Result<Response, Error> {
    let whole = upstream.call_timeout.min(BODY_WITHIN);
    let next_part = whole.min(NEXT_PART_WITHIN);
    let limits = MessageLimits { bytes: MAX_REQUEST_BYTES, next_part, whole };
    let (call, end, message) = read(upstream, caller, call, limits).await?;
    let bytes = response_memory::of_call(method_of(&call), message.plain(), message.framed.len());
    let reserved = deadline::within(end, upstream.response_memory.reserve(caller, bytes)).await?;
    let response = forward(upstream.embedder.clone(), call, end).await;
    drop(message.reservation);
    Ok(response.map(|body| Body::new(ReservedBody::new(body, reserved))))
}

/// Forwards a unary call to the auth service.
async fn forward_to_auth(upstream: &Upstream, caller: &str, call: Request) -> Result<Response, Error> {
    let (call, end, _message) = read(upstream, caller, call, AUTH_MESSAGE).await?;
    Ok(forward(upstream.auth.clone(), call, end).await)
}

async fn forward_revocation(upstream: &Upstream, claims: &Claims, call: Request) -> Result<Response, Error> {
    let (mut head, body) = forward_to_auth(upstream, &claims.sub, call).await?.into_parts();
    let body = body.collect().await.map_err(|_| unreachable())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get(Status::GRPC_STATUS).or_else(|| head.headers.get(Status::GRPC_STATUS));
    if status.is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Ok) {
        upstream.revoke(claims);
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::new(body)))
}

/// Reads the message of a unary call within the caller's deadline. Returns the call to forward, the deadline and the message.
async fn read(
    upstream: &Upstream,
    caller: &str,
    call: Request,
    limits: MessageLimits,
) -> Result<(Request, Option<Instant>, Message), Error> {
    let (head, body) = forwardable(call).into_parts();
    let end = deadline::end(&head.headers);
    let message =
        deadline::within(end, Message::read(body, limits, &upstream.request_memory, caller)).await?;
    let call = Request::from_parts(head, Body::new(Full::new(message.framed.clone())));
    Ok((call, end, message))
}

/// The call with only the headers of [`FORWARDED`].
fn forwardable(call: Request) -> Request {
    let (mut head, body) = call.into_parts();
    let mut headers = HeaderMap::with_capacity(FORWARDED.len());
    for name in FORWARDED {
        for value in head.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    head.headers = headers;
    // gRPC-Web may come over HTTP/1.1.
    head.version = http::Version::HTTP_2;
    Request::from_parts(head, body)
}

/// Sends a call to a service, with the time that is left until `end`, the caller's deadline.
pub(crate) async fn forward<S>(to: S, mut call: Request, end: Option<Instant>) -> Response
where
    S: Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    if let Some(Err(passed)) = end.map(|end| deadline::set(call.headers_mut(), end)) {
        return status(passed);
    }
    let response = to.oneshot(call.map(tonic::body::Body::new)).await;
    match response.map_err(Into::into) {
        Ok(response) => response.map(Body::new),
        Err(failure) if is_timeout(&*failure) && end.is_some_and(|end| end <= Instant::now()) => {
            status(deadline::passed())
        }
        Err(failure) => {
            debug!(failure = muse_telemetry::with_causes(&*failure), "a call cannot be forwarded");
            status(unreachable())
        }
    }
}

fn or_status(result: Result<Response, Error>) -> Response {
    result.unwrap_or_else(status)
}

fn status(error: Error) -> Response {
    Status::from(error).into_http()
}
