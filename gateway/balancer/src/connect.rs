//! Sends a call over a connection to its endpoint: the shared one, or one for a stream alone.

use std::task::{Context, Poll};

use http::{Request, Response};
use muse_telemetry::request_telemetry::TracedClient;
use tokio_util::sync::DropGuard;
use tonic::{
    body::Body,
    transport::{Channel, Error},
};
use tower::{BoxError, Service, ServiceExt, util::Oneshot};

use super::{
    attempt::{Attempt, CallKind},
    guarded_body::GuardedBody,
    map_result::{MapResult, MapResultFuture},
};

/// The innermost service: the channel to the endpoint of each attempt.
#[derive(Debug, Clone)]
pub(super) struct Connect;

impl Service<Attempt<Body>> for Connect {
    type Response = Response<GuardedBody<Body, DedicatedConnection>>;
    type Error = BoxError;
    type Future = MapResultFuture<Oneshot<TracedClient<Channel>, Request<Body>>, DedicatedConnection>;

    /// The channel is known at the call only, which waits for it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt<Body>) -> Self::Future {
        let Attempt { endpoint, kind, call, .. } = attempt;
        let (channel, _guard) = match kind {
            CallKind::Idempotent | CallKind::Other => (endpoint.channel.clone(), None),
            CallKind::Stream => {
                let (channel, guard) = endpoint.dedicated_channel();
                (channel, Some(guard))
            }
        };
        MapResultFuture::new(channel.oneshot(call), DedicatedConnection { _guard })
    }
}

/// The connection of a stream, which is closed when this is dropped; none of another call.
#[derive(Debug)]
pub(super) struct DedicatedConnection {
    _guard: Option<DropGuard>,
}

impl MapResult<Result<Response<Body>, Error>> for DedicatedConnection {
    type Output = Result<Response<GuardedBody<Body, Self>>, BoxError>;

    fn map_result(self, result: Result<Response<Body>, Error>) -> Self::Output {
        Ok(result?.map(|body| GuardedBody::new(body, self)))
    }
}
