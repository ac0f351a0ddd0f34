//! The gRPC services, straight through: a call is checked for its token and handed on as it is, bytes, deadlines,
//! trailers and all, so that a method added to the proto needs nothing here.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    response::Response,
    routing::post,
};
use http_body_util::BodyExt;
use muse_proto::{Error, Reason};
use muse_verifier::{Claims, TokenKind};
use tonic::{Code, Status, transport::Channel};
use tower::ServiceExt;
use tracing::debug;

use crate::upstream::Upstream;

pub(crate) fn routes(upstream: Upstream) -> Router {
    Router::new()
        .route("/muse.v1.AuthService/{method}", post(auth))
        .route("/muse.v1.EmbedderService/{method}", post(embedder))
        .with_state(upstream)
}

async fn auth(State(upstream): State<Upstream>, Path(method): Path<String>, call: Request) -> Response {
    let kind = match method.as_str() {
        "Login" => return forward(upstream.auth, call).await,
        "RefreshToken" => Some(TokenKind::Refresh),
        "RevokeToken" => None,
        _ => Some(TokenKind::Access),
    };
    match upstream.verifier.authorize(call.headers(), kind) {
        Ok(claims) if method == "RevokeToken" => revoke(upstream, claims, call).await,
        Ok(_) => forward(upstream.auth, call).await,
        Err(refusal) => refuse(refusal),
    }
}

async fn embedder(State(upstream): State<Upstream>, call: Request) -> Response {
    match upstream.verifier.authorize(call.headers(), Some(TokenKind::Access)) {
        Ok(_) => forward(upstream.embedder, call).await,
        Err(refusal) => refuse(refusal),
    }
}

/// As [`forward`], and a token that was revoked is refused here from the moment that its caller has the answer.
async fn revoke(upstream: Upstream, claims: Claims, call: Request) -> Response {
    let (mut head, body) = forward(upstream.auth, call).await.into_parts();
    let Ok(answer) = body.collect().await else {
        return refuse(Error::new(Reason::Unavailable, "the auth service broke off"));
    };
    let trailers = answer.trailers().cloned().unwrap_or_default();
    let status = trailers.get(Status::GRPC_STATUS).or_else(|| head.headers.get(Status::GRPC_STATUS));
    if status.is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Ok) {
        upstream.verifier.revoke(&claims.jti, claims.exp);
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, Body::new(answer))
}

async fn forward(to: Channel, call: Request) -> Response {
    match to.oneshot(call.map(tonic::body::Body::new)).await {
        Ok(answer) => answer.map(Body::new),
        Err(failure) => {
            debug!(failure = muse_chassis::with_causes(&failure), "a call cannot be handed on");
            refuse(Error::new(Reason::Unavailable, "the service behind the gateway cannot be reached"))
        }
    }
}

fn refuse(refusal: Error) -> Response {
    Status::from(refusal).into_http()
}
