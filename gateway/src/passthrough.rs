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
use muse_proto::Error;
use muse_verifier::{Claims, TokenKind};
use tonic::{Code, Status, transport::Channel};
use tower::ServiceExt;
use tracing::debug;

use crate::upstream::{Upstream, out_of_reach};

pub(crate) fn routes(upstream: Upstream) -> Router {
    Router::new()
        .route("/muse.v1.AuthService/{method}", post(auth))
        .route("/muse.v1.EmbedderService/{method}", post(embedder))
        .route("/muse.v1.UserService/{method}", post(users))
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

async fn users(State(upstream): State<Upstream>, call: Request) -> Response {
    with_access(&upstream, upstream.auth.clone(), call).await
}

async fn embedder(State(upstream): State<Upstream>, call: Request) -> Response {
    with_access(&upstream, upstream.embedder.clone(), call).await
}

async fn with_access(upstream: &Upstream, to: Channel, call: Request) -> Response {
    match upstream.verifier.authorize(call.headers(), Some(TokenKind::Access)) {
        Ok(_) => forward(to, call).await,
        Err(refusal) => refuse(refusal),
    }
}

/// As [`forward`], and a token that was revoked is refused here from the moment that its caller has the answer.
async fn revoke(upstream: Upstream, claims: Claims, call: Request) -> Response {
    let (mut head, body) = forward(upstream.auth.clone(), call).await.into_parts();
    let Ok(answer) = body.collect().await else {
        return refuse(out_of_reach());
    };
    let trailers = answer.trailers().cloned().unwrap_or_default();
    let status = trailers.get(Status::GRPC_STATUS).or_else(|| head.headers.get(Status::GRPC_STATUS));
    if status.is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Ok) {
        upstream.revoked(&claims);
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, Body::new(answer))
}

async fn forward(to: Channel, call: Request) -> Response {
    match to.oneshot(call.map(tonic::body::Body::new)).await {
        Ok(answer) => answer.map(Body::new),
        Err(failure) => {
            debug!(failure = muse_chassis::with_causes(&failure), "a call cannot be handed on");
            refuse(out_of_reach())
        }
    }
}

fn refuse(refusal: Error) -> Response {
    Status::from(refusal).into_http()
}
