//! Responses that nobody reads: one of which a part has waited too long for its client to take it is ended.
//!
//! hyper takes a part of a body when it has sent the one before. So the time from a part's being taken until the next one is
//! asked for is the time for which the client has not read. hyper's task cannot notice it itself, as it waits for the client.
//! The connection's task looks at all its responses now and then, and aborts the task that sends one: of HTTP/2 that of the
//! stream (RST_STREAM), of HTTP/1.1 that of the connection. What the response holds (its data, the call behind it) is dropped
//! with it.
//!
//! hyper drops a body when it has handed on its last part, which it does as soon as a byte of it can be sent. So the last byte of a
//! part of more than [`SMALL_PART`] is a part of its own: it is taken when all before it can be sent.

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

/// A larger part of a response is not given up before its client has taken nearly all of it.
const SMALL_PART: usize = 4 << 10;

tokio::task_local! {
    /// The task that sends the response which is being made. hyper makes it, and offers no other way to it.
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
    // Nobody else sets it.
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

/// How far a response is.
#[derive(Debug)]
struct Progress {
    /// The millisecond of the process in which a part was taken, if the next one was not asked for yet; else 0.
    taken: AtomicU64,
    sender: SenderTask,
}

/// Runs a connection, and ends those of its responses of which nothing was read for `send_timeout`.
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
        let progress = Arc::new(Progress { taken: AtomicU64::new(0), sender });
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
            let taken = progress.taken.load(Ordering::Relaxed);
            if taken != 0
                && now.saturating_sub(taken) > limit
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

/// The body of a response, whose progress is watched, and with which its call ends.
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
    // First, so that what it holds is gone when the call no longer counts.
    body: Body,
    /// Of the part that was taken.
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
            let taken = if matches!(polled, Poll::Ready(Some(Ok(_)))) { milliseconds() } else { 0 };
            tracked.progress.taken.store(taken, Ordering::Relaxed);
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

/// Milliseconds since the process began to send responses, from 1 on.
fn milliseconds() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
