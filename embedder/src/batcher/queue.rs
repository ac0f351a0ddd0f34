//! The queue in front of the model, shared by callers and threads that run passes.
//! [`admission`](super::admission) decides which requests enter it,
//! [`fair_queue`](super::fair_queue) in which order they leave it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc};
use muse_model::sentences::TokenizedSentences;
use muse_proto::Error;
use tokio::sync::Notify;

use super::{
    admission::{AdmissionControl, Candidate, RejectionCause, model_stopped},
    fair_queue::{FairQueue, RequestKey},
    flow::SizeClass,
    throughput::Throughput,
};
pub use super::{
    fair_queue::{BatchResult, BatchSlice},
    flow::{FlowKey, ServiceClass, UserName},
};
use crate::metrics::RejectionCounters;

/// While small requests arrive beside a backlog, the tokens of a pass are divided by this: such a
/// request waits for the end of a pass that is running, and then for that of its own. Smaller
/// passes cost some throughput.
const SHORT_PASS_DIVISOR: usize = 4;
/// For how long after such a request passes stay small.
const SHORT_PASSES_FOR: Duration = Duration::from_secs(1);
/// A pass is not made smaller than this many tokens for the sake of an idle thread.
const LEAST_SHARE: usize = 128;

/// The queue.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<QueueState>,
    admission: AdmissionControl,
    /// Notified when a request enters, or the queue is closed.
    work: Condvar,
    /// Notified when requests leave.
    room: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: FairQueue,
    /// Threads that wait for work.
    idle: usize,
    throughput: Throughput,
    /// Until when passes are small.
    short_passes_until: Option<Instant>,
    closed: bool,
}

/// A request in the queue. Dropping it cancels the sentences that no pass has taken.
#[derive(Debug)]
pub struct PendingRequest {
    queue: Arc<Queue>,
    key: RequestKey,
    /// Its sentences without a result.
    left: usize,
    results: mpsc::UnboundedReceiver<Result<BatchResult, Error>>,
}

impl Queue {
    /// A queue of at most `capacity` tokens, for passes on so many threads, in which a request
    /// without a deadline waits for at most `max_wait`.
    pub fn new(capacity: usize, max_wait: Duration, threads: usize, rejections: RejectionCounters) -> Self {
        let (waiting, throughput) = (FairQueue::new(max_wait), Throughput::of_threads(threads));
        let state = Mutex::new(QueueState { waiting, throughput, ..QueueState::default() });
        let admission = AdmissionControl::new(capacity, max_wait, rejections);
        Self { state, admission, work: Condvar::new(), room: Notify::new() }
    }

    /// Tokens that may wait.
    pub fn capacity(&self) -> usize {
        self.admission.capacity()
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> usize {
        self.lock().waiting.tokens()
    }

    /// The most tokens that a request can have in a queue of this capacity.
    pub fn largest_request(capacity: usize) -> usize {
        AdmissionControl::largest_request(capacity)
    }

    /// Appends a request if it is admitted. `estimated_tokens` is that of [`Queue::check`], and
    /// determines its size class; `deadline` is its caller's.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`](muse_proto::Reason) with the cause and the time after which to try
    /// again; [`Reason::Unavailable`](muse_proto::Reason) if the model has stopped.
    pub fn push(
        self: &Arc<Self>,
        flow: &FlowKey,
        sentences: Arc<TokenizedSentences>,
        estimated_tokens: usize,
        deadline: Option<Instant>,
    ) -> Result<PendingRequest, Error> {
        let mut state = self.lock();
        let (tokens, class) = (sentences.tokens(), SizeClass::of_call(estimated_tokens));
        let admitted = self.admit(&state, Candidate { flow, class, tokens, deadline, is_tokenized: true });
        admitted.map_err(|cause| self.admission.reject(cause))?;
        Ok(self.insert(&mut state, flow, class, deadline.is_some(), sentences))
    }

    /// Appends an item of a stream as soon as few enough of the flow's are queued.
    ///
    /// # Errors
    ///
    /// [`Reason::Unavailable`](muse_proto::Reason) if the model has stopped.
    pub async fn push_item(
        self: &Arc<Self>,
        flow: &FlowKey,
        sentence: Arc<TokenizedSentences>,
    ) -> Result<PendingRequest, Error> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // From here on no notification is missed.
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.closed {
                    return Err(self.admission.reject(RejectionCause::Stopped));
                }
                let QueueState { waiting, throughput, .. } = &*state;
                if self.admission.has_room_for_item(waiting, throughput, flow, sentence.tokens()) {
                    return Ok(self.insert(&mut state, flow, SizeClass::Stream, false, sentence));
                }
            }
            room.await;
        }
    }

    /// Whether a request of about so many tokens would be admitted now. The estimate may be twice
    /// the actual number, so this checks half of it; [`Queue::push`] decides.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`].
    pub fn check(
        &self,
        flow: &FlowKey,
        estimated_tokens: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let (state, class) = (self.lock(), SizeClass::of_call(estimated_tokens));
        let tokens = estimated_tokens / 2;
        let admitted = self.admit(&state, Candidate { flow, class, tokens, deadline, is_tokenized: false });
        admitted.map_err(|cause| self.admission.reject(cause))
    }

    fn admit(&self, state: &QueueState, request: Candidate<'_>) -> Result<(), RejectionCause> {
        if state.closed {
            return Err(RejectionCause::Stopped);
        }
        self.admission.check(&state.waiting, &state.throughput, request)
    }

    fn insert(
        self: &Arc<Self>,
        state: &mut QueueState,
        flow: &FlowKey,
        class: SizeClass,
        has_deadline: bool,
        sentences: Arc<TokenizedSentences>,
    ) -> PendingRequest {
        if state.waiting.shortens_passes(flow, class) {
            state.short_passes_until = Some(Instant::now() + SHORT_PASSES_FOR);
        }
        let (sender, results) = mpsc::unbounded();
        let left = sentences.len();
        let key = state.waiting.push(flow, class, has_deadline, sentences, sender);
        // Each notification is a system call.
        if state.idle > 0 {
            self.work.notify_one();
        }
        PendingRequest { queue: Arc::clone(self), key, left, results }
    }

    /// Waits for work, and takes the slices of the next pass: at most `most` tokens (a longer
    /// sentence is a pass of its own). Returns nothing once the queue is closed.
    pub fn take(&self, most: usize) -> Option<Vec<BatchSlice>> {
        let mut state = self.lock();
        state.idle += 1;
        while state.waiting.tokens() == 0 && !state.closed {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        if state.closed {
            return None;
        }
        let is_short = state.short_passes_until.is_some_and(|until| Instant::now() < until);
        let most = if is_short { most.div_ceil(SHORT_PASS_DIVISOR) } else { most };
        // Idle threads get their share.
        let share = state.waiting.tokens().div_ceil(state.idle + 1);
        let slices = state.waiting.take_batch(share.max(LEAST_SHARE).min(most));
        if state.waiting.tokens() > 0 && state.idle > 0 {
            self.work.notify_one();
        }
        drop(state);
        self.room.notify_waiters();
        Some(slices)
    }

    /// Adds a pass to the measured throughput.
    pub fn record_pass(&self, tokens: usize, took: Duration) {
        self.lock().throughput.add(tokens, took);
    }

    /// Closes the queue: drops what waits, and fails the requests and items that wait for a result
    /// or for room.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.work.notify_all();
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No code that holds it can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingRequest {
    /// The result of the next pass, until all sentences are done.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`](muse_proto::Reason) if a pass failed,
    /// [`Reason::Unavailable`](muse_proto::Reason) if the model has stopped.
    pub async fn next(&mut self) -> Option<Result<BatchResult, Error>> {
        if self.left == 0 {
            return None;
        }
        let outcome = self.results.next().await.unwrap_or_else(|| Err(model_stopped()));
        if let Ok(result) = &outcome {
            self.left -= result.range.len();
        }
        Some(outcome)
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        if self.left == 0 {
            return;
        }
        self.queue.lock().waiting.cancel(&self.key);
        self.queue.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
