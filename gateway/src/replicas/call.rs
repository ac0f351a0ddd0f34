//! A call to one of the embedders, and to another one when that fails.
//!
//! `Embed`, `Tokenize` and `GetModel` change nothing, so they are sent again whatever has become of them, as long as the
//! caller's deadline and the [budget](super::budget) allow it: when the connection breaks, even in the middle of the answer
//! (which is why it is held until it is whole), and when the replica says UNAVAILABLE. It may be the call that breaks the
//! connection, and it would break all others, too. So it is not sent again where the replica can still be reached, and once at
//! most where the replica has gone. A stream is sent again only while
//! nothing was answered and no more of it was sent than is kept.
//!
//! A call that is rejected with OVERLOADED is sent to one other replica, within the same budget. It says nothing of other calls: it
//! may be the deadline that cannot be met, or the user's own requests that use up the queue's memory.
//!
//! Where there is only one to choose, nothing is kept or held. For what is, there is a bound, beyond which calls go on
//! without.

use std::{
    error::Error as StdError,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, request};
use muse_chassis::{deadline, trace::Outgoing};
use muse_proto::{Error, Reason};
use tokio_util::sync::DropGuard;
use tonic::{Code, Status, TimeoutExpired, body::Body, transport::Channel};
use tower::{Service, ServiceExt};
use tracing::debug;

use super::{
    Replicas,
    answer::Answer,
    held::Held,
    kept::Kept,
    replica::{InFlight, Replica, State},
    store::Store,
};

/// The calls that may be made twice.
const PURE: [&str; 3] = ["Embed", "Tokenize", "GetModel"];
/// Replicas that a call is sent to at most.
const MOST_TRIES: usize = 3;
/// What a call weighs besides its bytes: about as much as a pass costs for a few words more.
const CALL_WEIGHT: usize = 256;
/// What a stream weighs, whose bytes come and go.
const STREAM_WEIGHT: usize = 8 << 10;
/// Bytes of a call that are kept: all, by the limits of the embedder, and a bit for the frame around them.
const KEPT_OF_CALL: usize = (16 << 20) + 1024;
/// Bytes of a stream that are kept until its answer begins.
const KEPT_OF_STREAM: usize = 64 << 10;

type BoxError = Box<dyn StdError + Send + Sync>;

/// There is no embedder at all.
#[derive(Debug, thiserror::Error)]
#[error("no embedder is known")]
struct NoEmbedder;

/// What has become of a call.
enum Outcome {
    /// It is answered, or it makes no difference who is asked.
    Final(Result<Response<Body>, BoxError>),
    /// It may be answered elsewhere.
    Lost(Result<Response<Body>, BoxError>),
    /// It is rejected.
    Rejected(Response<Body>),
}

impl Outcome {
    fn into_result(self) -> Result<Response<Body>, BoxError> {
        match self {
            Self::Final(result) | Self::Lost(result) => result,
            Self::Rejected(response) => Ok(response),
        }
    }
}

impl Service<Request<Body>> for Replicas {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<Body>) -> Self::Future {
        let replicas = self.clone();
        async move { replicas.send(call).await }.boxed()
    }
}

impl Replicas {
    /// How long a call may take: until its deadline, or the longest for any.
    fn wait_for(&self, head: &request::Parts) -> Duration {
        deadline::of(&head.headers).map_or(self.0.call_timeout, |wait| wait.min(self.0.call_timeout))
    }

    async fn send(self, call: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.next_turn();
        let replica = self.choose(State::Away, &[]).ok_or(NoEmbedder)?;
        if self.choose(State::Unknown, std::slice::from_ref(&replica)).is_some() {
            return self.send_to_any(call, replica).await;
        }
        let pure = is_pure(&call);
        let in_flight = Arc::new(InFlight::new(&replica, weight(pure)));
        let (channel, connection) = channel(&replica, pure);
        let answer = channel.oneshot(call).await?;
        Ok(answer.map(|body| counted(body, in_flight, connection)))
    }

    /// Sends a call to a replica, and to others if it may be answered there.
    async fn send_to_any(
        &self,
        call: Request<Body>,
        mut replica: Arc<Replica>,
    ) -> Result<Response<Body>, BoxError> {
        let pure = is_pure(&call);
        let (mut head, body) = call.into_parts();
        let end = Instant::now() + self.wait_for(&head);
        let store = &self.0.store;
        let kept = Kept::new(body, if pure { KEPT_OF_CALL } else { KEPT_OF_STREAM }, store.place());
        let (mut tried, mut rejected, mut broke) = (Vec::new(), false, false);
        loop {
            tried.push(Arc::clone(&replica));
            let outcome = ask(&replica, &head, &kept, pure.then_some(store)).await;
            let worst = match &outcome {
                Outcome::Final(_) => None,
                Outcome::Lost(lost) => {
                    replica.eject();
                    let again = match lost {
                        Err(failure) if broke_connection(&**failure) => {
                            !std::mem::replace(&mut broke, true) && !replica.is_reachable().await
                        }
                        _ => true,
                    };
                    again.then_some(State::Unknown)
                }
                Outcome::Rejected(_) => (!std::mem::replace(&mut rejected, true)).then_some(State::Serving),
            };
            let next = worst.filter(|_| kept.is_whole() && tried.len() < MOST_TRIES).and_then(|worst| {
                let next = self.choose(worst, &tried)?;
                deadline::set(&mut head.headers, end).ok()?;
                self.0.budget.withdraw().then_some(next)
            });
            let Some(next) = next else {
                kept.let_go();
                self.0.budget.deposit();
                return outcome.into_result();
            };
            debug!(from = %replica.address, to = %next.address, "a call is sent elsewhere");
            replica = next;
        }
    }
}

fn method_of<T>(call: &Request<T>) -> Option<&str> {
    call.uri().path().rsplit('/').next()
}

fn is_pure<T>(call: &Request<T>) -> bool {
    method_of(call).is_some_and(|method| PURE.contains(&method))
}

/// The connection for a call: one that all share, or one of its own, and what closes that.
fn channel(replica: &Replica, pure: bool) -> (Outgoing<Channel>, Option<DropGuard>) {
    if pure {
        return (replica.channel.clone(), None);
    }
    let (channel, connection) = replica.dedicated_channel();
    (channel, Some(connection))
}

fn weight(pure: bool) -> usize {
    if pure { CALL_WEIGHT } else { STREAM_WEIGHT }
}

/// Makes a call to one replica. The answer is held in a store, if there is one.
async fn ask(replica: &Arc<Replica>, head: &request::Parts, kept: &Kept, store: Option<&Store>) -> Outcome {
    let pure = store.is_some();
    let in_flight = Arc::new(InFlight::new(replica, weight(pure)));
    let body = kept.send(Arc::clone(&in_flight), pure);
    let (channel, connection) = channel(replica, pure);
    let answered = channel.oneshot(Request::from_parts(head.clone(), body)).await;
    let failed = |failure: BoxError| {
        let is_final = kept.is_broken() || ran_out_of_time(&*failure) || violates_protocol(&*failure);
        if is_final { Outcome::Final(Err(failure)) } else { Outcome::Lost(Err(failure)) }
    };
    let (head, body) = match answered {
        Ok(answer) => answer.into_parts(),
        Err(failure) => return failed(failure.into()),
    };
    let (status, body) = match store {
        None => (Status::from_header_map(&head.headers), counted(body, in_flight, connection)),
        Some(store) => match Held::read(body, store).await {
            Err(failure) => return failed(failure.into()),
            Ok(held) => {
                let status = Status::from_header_map(held.trailers().unwrap_or(&head.headers));
                let body =
                    if held.is_whole() { Body::new(held) } else { counted(Body::new(held), in_flight, None) };
                (status, body)
            }
        },
    };
    judged(Response::from_parts(head, body), status)
}

fn judged(answer: Response<Body>, status: Option<Status>) -> Outcome {
    match status {
        Some(status) if status.code() == Code::Unavailable => Outcome::Lost(Ok(answer)),
        Some(status) if is_overloaded(&status) => Outcome::Rejected(answer),
        _ => Outcome::Final(Ok(answer)),
    }
}

fn is_overloaded(status: &Status) -> bool {
    // Most end well, and what has details takes a while to read.
    status.code() == Code::ResourceExhausted && Error::from(status).reason() == Reason::Overloaded
}

fn counted(body: Body, call: Arc<InFlight>, connection: Option<DropGuard>) -> Body {
    Body::new(Answer { body, call, _connection: connection, broken: false })
}

/// Whether a connection that stood has broken, other than for silence.
fn broke_connection(failure: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(failure), |&failure| failure.source())
        .filter_map(<dyn StdError>::downcast_ref::<hyper::Error>)
        .any(|failure| !failure.is_timeout())
}

/// Whether HTTP/2 itself was violated, as one of the two sides sees it. It may be this call that has done it, so it is not sent to
/// another replica.
fn violates_protocol(failure: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(failure), |&failure| failure.source())
        .filter_map(<dyn StdError>::downcast_ref::<h2::Error>)
        .filter_map(h2::Error::reason)
        .any(|reason| {
            !matches!(reason, h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM | h2::Reason::CANCEL)
        })
}

/// Whether it was the time that was up.
pub(crate) fn ran_out_of_time(failure: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(failure), |&failure| failure.source())
        .any(<dyn StdError>::is::<TimeoutExpired>)
}
