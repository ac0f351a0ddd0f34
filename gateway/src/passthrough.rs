//! The gRPC services, straight through: a call is checked for its token and handed on as it is, bytes, deadlines,
//! trailers and all, so that a method added to the proto needs nothing here.
//!
//! A call without an answer is given up at the caller's deadline, or at the timeout of the service behind. That does not
//! concern the streams: their answer begins at once, however long it goes on.

use std::{error::Error as StdError, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::{MethodRouter, post},
};
use http_body_util::BodyExt;
use muse_chassis::deadline;
use muse_proto::Error;
use muse_verifier::{Claims, TokenKind};
use tonic::{Code, Status};
use tower::{Service, ServiceExt};
use tracing::debug;

use crate::{
    drain::Cut,
    replicas::ran_out_of_time,
    routing::{method_not_allowed, with_methods},
    upstream::{Upstream, out_of_reach},
};

pub(crate) fn routes(upstream: Upstream) -> Router {
    Router::new()
        .route("/muse.v1.AuthService/{method}", on_post(post(auth)))
        .route("/muse.v1.EmbedderService/{method}", on_post(post(embedder)))
        .route("/muse.v1.UserService/{method}", on_post(post(users)))
        .with_state(upstream)
}

fn on_post(route: MethodRouter<Upstream>) -> MethodRouter<Upstream> {
    with_methods(route, "OPTIONS, POST", method_not_allowed)
}

fn method_of(call: &Request) -> &str {
    call.uri().path().rsplit('/').next().unwrap_or_default()
}

async fn auth(State(upstream): State<Upstream>, call: Request) -> Response {
    let method = method_of(&call);
    let kind = match method {
        "Login" => return forward(upstream.auth, call).await,
        "RefreshToken" => Some(TokenKind::Refresh),
        "RevokeToken" => None,
        _ => Some(TokenKind::Access),
    };
    let revokes = method == "RevokeToken";
    match upstream.verifier.authorize(call.headers(), kind) {
        Ok(claims) if revokes => revoke(upstream, claims, call).await,
        Ok(_) => forward(upstream.auth, call).await,
        Err(refusal) => refuse(refusal),
    }
}

async fn users(State(upstream): State<Upstream>, call: Request) -> Response {
    with_access(&upstream, upstream.auth.clone(), call).await
}

async fn embedder(State(upstream): State<Upstream>, call: Request) -> Response {
    if method_of(&call) == "EmbedStream" {
        let cut = Cut::default();
        let call = cut.at(upstream.shutdown.clone(), call);
        return cut.told(with_access(&upstream, upstream.embedder.clone(), call).await);
    }
    with_access(&upstream, upstream.embedder.clone(), call).await
}

async fn with_access<S>(upstream: &Upstream, to: S, call: Request) -> Response
where
    S: Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
{
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

async fn forward<S>(to: S, mut call: Request) -> Response
where
    S: Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let deadline = deadline::of(call.headers()).map(|wait| Instant::now() + wait);
    // As gRPC-Web over HTTP/1.1 came.
    *call.version_mut() = http::Version::HTTP_2;
    call.headers_mut().remove(http::header::HOST);
    let answered = to.oneshot(call.map(tonic::body::Body::new)).await;
    match answered.map_err(Into::into) {
        Ok(answer) => answer.map(Body::new),
        Err(failure) if ran_out_of_time(&*failure) && deadline.is_some_and(|end| end <= Instant::now()) => {
            refuse(deadline::passed())
        }
        Err(failure) => {
            debug!(failure = muse_chassis::with_causes(&*failure), "a call cannot be handed on");
            refuse(out_of_reach())
        }
    }
}

fn refuse(refusal: Error) -> Response {
    Status::from(refusal).into_http()
}
