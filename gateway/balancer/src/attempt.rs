//! One attempt: a call that is sent to one endpoint.

use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use tower::BoxError;

use super::{
    endpoint::EmbedderEndpoint,
    model::ModelIdentity,
    replay_body::{ReplayBody, ReplayedBody},
};

/// The idempotent methods.
const IDEMPOTENT: [&str; 4] = ["Embed", "Tokenize", "GetModel", "GetStatus"];
/// The streaming method.
const STREAM: &str = "EmbedStream";

/// The result of a call.
pub(super) type CallResult = Result<Response<Body>, BoxError>;

/// How a call is sent and retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// An unary call of an idempotent method. Its response is buffered, so that it can be retried until that is complete.
    Idempotent,
    /// A stream. It has a connection of its own, and is retried only before its response begins.
    Stream,
    /// A call of another method. It is not retried.
    Other,
}

impl CallKind {
    pub(super) fn of<B>(call: &Request<B>) -> Self {
        match call.uri().path().rsplit('/').next() {
            Some(method) if IDEMPOTENT.contains(&method) => Self::Idempotent,
            Some(STREAM) => Self::Stream,
            _ => Self::Other,
        }
    }
}

/// A call to an endpoint that was picked.
#[derive(Debug)]
pub(super) struct Attempt<B = AttemptBody> {
    pub(super) endpoint: Arc<EmbedderEndpoint>,
    /// The model for which the endpoint was picked.
    pub(super) model: ModelIdentity,
    pub(super) kind: CallKind,
    pub(super) call: Request<B>,
}

impl Attempt {
    /// The replay body of the call; none if the call is sent once only.
    pub(super) fn replay(&self) -> Option<&ReplayBody> {
        match self.call.body() {
            AttemptBody::Once(_) => None,
            AttemptBody::Replayed(body) => Some(body.replay()),
        }
    }
}

/// The request body of an attempt.
#[derive(Debug)]
pub(super) enum AttemptBody {
    /// Of a call that is sent once.
    Once(Body),
    /// Of a call that may be retried.
    Replayed(ReplayedBody),
}

#[cfg(test)]
impl<B> Attempt<B> {
    /// An attempt at an endpoint that accepts no connections.
    pub(super) fn for_test(kind: CallKind, body: B) -> Self {
        let endpoint = super::cluster::Cluster::for_test(None).add_for_test(1).remove(0);
        Self { endpoint, model: ModelIdentity::Unreported, kind, call: Request::new(body) }
    }
}
