//! Send timeout: a response is ended if its client has read nothing of it for too long.
//!
//! This is not tower-http's `TimeoutBody`, which limits the time in which a body produces a part. Here the client is slow.
//!
//! hyper polls a body for a part when it has sent the previous one. So the time from one part until the next poll is the time for
//! which the client has not read. hyper's task cannot measure it, because it waits for the client. The connection's task checks all
//! its responses periodically, and aborts the task that sends a stalled one: over HTTP/2 the task of the stream (RST_STREAM), over
//! HTTP/1.1 the task of the connection. That drops the response with its data and its call to a service.
//!
//! hyper drops a body after its last part, as soon as one byte of that can be sent. So the last byte of a part of more than
//! [`SMALL_PART`] is a part of its own: hyper polls for it when all bytes before it can be sent.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use tokio::{
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::debug;

use super::call_limits::CallPermit;

/// Bytes of a part that is not split.
const SMALL_PART: usize = 4 << 10;

tokio::task_local! {
    /// The task that sends the current response. hyper creates it, and gives no other access to it.
    static SENDER: SenderTask;
}

/// The handle of a task, once it is known.
type SenderTask = Arc<OnceLock<AbortHandle>>;

/// Spawns the tasks of HTTP/2's streams, so that each can be aborted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        spawn_sender(stream);
    }
}

fn spawn_sender<F>(sending: F)
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let sender = SenderTask::default();
    let task = tokio::spawn(SENDER.scope(Arc::clone(&sender), sending));
    // It is set only here.
    let _ = sender.set(task.abort_handle());
}

/// The responses that are being sent on a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionResponses(Arc<Mutex<Responses>>);

#[derive(Debug, Default)]
struct Responses {
    last: u64,
    sending: HashMap<u64, Arc<Progress>>,
}

/// The progress of a response.
#[derive(Debug)]
struct Progress {
    /// The time of the last part (see [`milliseconds`]) while hyper has not polled for the next one; else 0.
    sent: AtomicU64,
    sender: SenderTask,
}

/// Runs a connection, and ends its responses of which the client has read nothing for `send_timeout`.
pub(crate) fn run_connection(
    connection: impl Future<Output = ()> + Send + 'static,
    responses: ConnectionResponses,
    send_timeout: Duration,
) {
    spawn_sender(async move {
        let period = (send_timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(5));
        let mut checks = interval_at(Instant::now() + period, period);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                biased;
                () = &mut connection => return,
                _ = checks.tick() => responses.end_unread(send_timeout),
            }
        }
    });
}

impl ConnectionResponses {
    fn begin(&self) -> Option<Tracked> {
        let sender = SENDER.try_with(Arc::clone).ok()?;
        let progress = Arc::new(Progress { sent: AtomicU64::new(0), sender });
        let mut responses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        responses.last += 1;
        let id = responses.last;
        responses.sending.insert(id, Arc::clone(&progress));
        Some(Tracked { responses: self.clone(), id, progress })
    }

    fn end_unread(&self, send_timeout: Duration) {
        let (now, limit) = (milliseconds(), u64::try_from(send_timeout.as_millis()).unwrap_or(u64::MAX));
        let responses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for progress in responses.sending.values() {
            let sent = progress.sent.load(Ordering::Relaxed);
            if sent != 0
                && now.saturating_sub(sent) > limit
                && let Some(sender) = progress.sender.get()
            {
                debug!("the client has not read a response for too long");
                sender.abort();
            }
        }
    }
}

/// A response among those of its connection, until this is dropped.
#[derive(Debug)]
struct Tracked {
    responses: ConnectionResponses,
    id: u64,
    progress: Arc<Progress>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.responses.0.lock().unwrap_or_else(PoisonError::into_inner).sending.remove(&self.id);
    }
}

/// A response body that records its progress. The call is open until the body is dropped.
pub(crate) fn track_response(
    body: Body,
    permit: CallPermit,
    connection: Option<ConnectionResponses>,
) -> ProgressBody {
    let tracked = connection.and_then(|connection| connection.begin());
    ProgressBody { body, last_byte: None, tracked, _permit: permit }
}

/// See [`track_response`].
#[derive(Debug)]
pub(crate) struct ProgressBody {
    // The first field, so that it is dropped before the permit.
    body: Body,
    /// The last byte of the previous part.
    last_byte: Option<Bytes>,
    tracked: Option<Tracked>,
    _permit: CallPermit,
}

impl http_body::Body for ProgressBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = match this.last_byte.take() {
            Some(last) => Poll::Ready(Some(Ok(Frame::data(last)))),
            None => Pin::new(&mut this.body).poll_frame(context).map_ok(|frame| {
                frame.map_data(|mut part| {
                    this.last_byte = (part.len() > SMALL_PART).then(|| part.split_off(part.len() - 1));
                    part
                })
            }),
        };
        if let Some(tracked) = &this.tracked {
            let sent = if matches!(polled, Poll::Ready(Some(Ok(_)))) { milliseconds() } else { 0 };
            tracked.progress.sent.store(sent, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.last_byte.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (left, mut hint) = (u64::from(self.last_byte.is_some()), self.body.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + left);
        }
        hint.set_lower(hint.lower() + left);
        hint
    }
}

/// Milliseconds since the first response of the process, from 1 on.
fn milliseconds() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
