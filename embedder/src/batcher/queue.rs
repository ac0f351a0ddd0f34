//! The queue before the model: which requests are admitted, and how callers and passes find each other. The order is that of
//! [`fair_queue`](super::fair_queue).
//!
//! A request is admitted whole, and rejected for one of three reasons only:
//!
//! 1. It cannot finish before its caller's deadline, by the [throughput](super::throughput) that was measured.
//! 2. It has no deadline, and would wait longer than the maximum queueing time, by the same estimate and with the same margin.
//! 3. The memory for requests that wait is used up: a user may hold as many tokens as are left free for others (the dynamic
//!    threshold of Choudhury and Hahne 1998), so that there is always room for another user.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc};
use muse_model::sentences::Sentences;
use muse_proto::{Error, Reason};
use tokio::sync::Notify;

pub use super::fair_queue::{BatchResult, BatchSlice, User};
use super::{
    fair_queue::{Class, FairQueue, Key},
    throughput::Throughput,
};
use crate::metrics::RejectionCounters;

/// Items of a user's streams are queued for this time at most; further ones are not read yet. It is enough to fill the passes.
const STREAM_AHEAD: Duration = Duration::from_millis(125);
/// The factor on an estimate before it is compared with a deadline or with the maximum queueing time: measured waits are 10 to
/// 20 % longer than their estimates, and what is done too late is done for nothing.
const MARGIN: f64 = 1.1;
/// The shortest time that a rejection names for another try.
const SHORTEST_RETRY: Duration = Duration::from_millis(50);
/// While small requests arrive beside a backlog, a pass has this part of the tokens that it may have: they wait for the end of
/// one that has begun, and then for that of their own. Smaller passes cost some throughput.
const INTERACTIVE_PASS: usize = 4;
/// For how long after such a request passes stay small.
const INTERACTIVE_FOR: Duration = Duration::from_secs(1);
/// A pass is not made smaller than this many tokens for the sake of a thread that is idle.
const LEAST_SHARE: usize = 128;

/// The queue, shared by the callers and the threads that run passes.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Something waits for a pass, or the queue is closed.
    work: Condvar,
    /// Something left the queue.
    room: Notify,
    capacity: usize,
    max_wait: Duration,
    refused: RejectionCounters,
}

#[derive(Debug, Default)]
struct State {
    waiting: FairQueue,
    /// Threads that wait for work.
    idle: usize,
    throughput: Throughput,
    /// Until when passes are small.
    interactive_until: Option<Instant>,
    closed: bool,
}

/// A request in the queue. What has not been taken when it is dropped is never computed.
#[derive(Debug)]
pub struct PendingRequest {
    queue: Arc<Queue>,
    key: Key,
    /// Its sentences that were not answered yet.
    left: usize,
    done: mpsc::UnboundedReceiver<Result<BatchResult, Error>>,
}

/// Why a request is not admitted. Times are estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rejection {
    /// The model has stopped.
    Stopped,
    /// Too many tokens wait, of this user or of all together; `drained` is when they will not any more.
    Memory { own: usize, total: usize, drained: Option<Duration> },
    /// It would be done after this time, and its deadline passes before.
    Deadline { done: Duration, left: Duration },
    /// It would wait for this time, the margin included.
    Wait { wait: Duration },
}

impl Queue {
    /// A queue of at most `capacity` tokens, for passes on so many threads, in which a request without a deadline waits for
    /// `max_wait` at most.
    pub fn new(capacity: usize, max_wait: Duration, threads: usize, refused: RejectionCounters) -> Self {
        let (waiting, throughput) = (FairQueue::new(max_wait), Throughput::of_threads(threads));
        let state = State { waiting, throughput, ..State::default() };
        let (work, room) = (Condvar::new(), Notify::new());
        Self { state: Mutex::new(state), work, room, capacity, max_wait, refused }
    }

    /// Tokens that may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> usize {
        self.lock().waiting.tokens()
    }

    /// The most tokens that a request can have.
    pub fn largest_request(capacity: usize) -> usize {
        // As the only one it may leave as much free.
        capacity / 2
    }

    /// Puts a request into the queue if it is admitted. `deadline` is its caller's.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] with the reason and the time after which another try makes sense;
    /// [`Reason::Unavailable`] if the model has stopped.
    pub fn push(
        self: &Arc<Self>,
        user: &User,
        sentences: Arc<Sentences>,
        deadline: Option<Instant>,
    ) -> Result<PendingRequest, Error> {
        let mut state = self.lock();
        let class = Class::of_call(sentences.tokens());
        let admitted = self.admit(&state, user, class, sentences.tokens(), deadline);
        admitted.map_err(|rejection| self.error(rejection))?;
        Ok(self.insert(&mut state, user, class, deadline.is_some(), sentences))
    }

    /// Puts an item of a stream into the queue as soon as few enough of the user's are there.
    ///
    /// # Errors
    ///
    /// [`Reason::Unavailable`] if the model has stopped.
    pub async fn push_item(
        self: &Arc<Self>,
        user: &User,
        sentence: Arc<Sentences>,
    ) -> Result<PendingRequest, Error> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // From here on no notice is missed.
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.closed {
                    return Err(self.error(Rejection::Stopped));
                }
                if self.has_room_for_item(&state, user, sentence.tokens()) {
                    return Ok(self.insert(&mut state, user, Class::Stream, false, sentence));
                }
            }
            room.await;
        }
    }

    /// Whether a request of about so many tokens may be admitted now. The estimate may be twice the truth, so half of it is
    /// looked at, in the class of either; [`Queue::push`] decides.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`].
    pub fn check(&self, user: &str, about: usize, deadline: Option<Instant>) -> Result<(), Error> {
        let (state, least) = (self.lock(), about / 2);
        let admit = |class| self.admit(&state, user, class, least, deadline);
        let admitted = admit(Class::of_call(least)).or_else(|_| admit(Class::of_call(about)));
        admitted.map_err(|rejection| self.error(rejection))
    }

    fn insert(
        self: &Arc<Self>,
        state: &mut State,
        user: &User,
        class: Class,
        has_deadline: bool,
        sentences: Arc<Sentences>,
    ) -> PendingRequest {
        if state.waiting.is_interactive(user, class) {
            state.interactive_until = Some(Instant::now() + INTERACTIVE_FOR);
        }
        let (sender, done) = mpsc::unbounded();
        let left = sentences.len();
        let key = state.waiting.push(user, class, has_deadline, sentences, sender);
        // Each notice is a system call.
        if state.idle > 0 {
            self.work.notify_one();
        }
        PendingRequest { queue: Arc::clone(self), key, left, done }
    }

    /// What the next pass takes, at most `most` tokens (a longer sentence is a pass of its own), as soon as anything
    /// waits; nothing once the queue is closed.
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
        let is_interactive = state.interactive_until.is_some_and(|until| Instant::now() < until);
        let most = if is_interactive { most.div_ceil(INTERACTIVE_PASS) } else { most };
        // Those that are idle get their share.
        let share = state.waiting.tokens().div_ceil(state.idle + 1);
        let parts = state.waiting.gather(share.max(LEAST_SHARE).min(most));
        if state.waiting.tokens() > 0 && state.idle > 0 {
            self.work.notify_one();
        }
        drop(state);
        self.room.notify_waiters();
        Some(parts)
    }

    /// Counts a pass towards the throughput.
    pub fn drained(&self, tokens: usize, took: Duration) {
        self.lock().throughput.add(tokens, took);
    }

    /// Ends it: nothing is taken from it any more, and what waits is told.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.work.notify_all();
        self.room.notify_waiters();
    }

    fn admit(
        &self,
        state: &State,
        user: &str,
        class: Class,
        tokens: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Rejection> {
        if state.closed {
            return Err(Rejection::Stopped);
        }
        let excess = self.excess(state, user, tokens);
        if excess > 0 {
            let (own, total) = (state.waiting.tokens_of(user), state.waiting.tokens());
            return Err(Rejection::Memory { own, total, drained: state.throughput.time_for(excess) });
        }
        let ahead = state.waiting.ahead_of(user, class, tokens, deadline.is_some());
        let Some(wait) = state.throughput.time_for(ahead).filter(|_| ahead > 0) else { return Ok(()) };
        let done = state.throughput.time_for(ahead + tokens).unwrap_or(wait);
        let wait = wait.mul_f64(MARGIN);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if done.mul_f64(MARGIN) > left => Err(Rejection::Deadline { done, left }),
            None if wait > self.max_wait => Err(Rejection::Wait { wait }),
            _ => Ok(()),
        }
    }

    /// Tokens by which a request exceeds what its user may have waiting.
    fn excess(&self, state: &State, user: &str, tokens: usize) -> usize {
        let free = self.capacity.saturating_sub(state.waiting.tokens() + tokens);
        (state.waiting.tokens_of(user) + tokens).saturating_sub(free)
    }

    fn has_room_for_item(&self, state: &State, user: &str, tokens: usize) -> bool {
        let queued = state.waiting.tokens_of_class(user, Class::Stream);
        // The first is always admitted, or a user whose calls use up the memory would stop their own streams.
        let most = state.throughput.tokens_in(STREAM_AHEAD).unwrap_or(usize::MAX);
        queued == 0 || (queued + tokens <= most && self.excess(state, user, tokens) == 0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds it can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a rejection, and returns its error.
    fn error(&self, rejection: Rejection) -> Error {
        let RejectionCounters { room, wait: too_long, deadline, stopped: closed } = &self.refused;
        let (counter, text, retry_after) = match rejection {
            Rejection::Stopped => (closed, None, None),
            Rejection::Memory { own, total, drained } => {
                let text = format!(
                    "the queue is full: {own} tokens of yours and {total} of all users wait, of {} in all; try again later",
                    self.capacity
                );
                (room, Some(text), drained)
            }
            Rejection::Deadline { done, left } => {
                let text = format!(
                    "the request cannot finish before its deadline: that takes about {:.1} s, and {:.1} s are left",
                    done.as_secs_f64(),
                    left.as_secs_f64()
                );
                (deadline, Some(text), Some(done.saturating_sub(left)))
            }
            Rejection::Wait { wait } => {
                let text = format!(
                    "the request would wait for about {:.1} s, longer than the maximum queueing time of {} s",
                    wait.as_secs_f64(),
                    self.max_wait.as_secs()
                );
                (too_long, Some(text), Some(wait.saturating_sub(self.max_wait)))
            }
        };
        counter.inc();
        let Some(text) = text else { return stopped() };
        // What was just measured may change, and a client that tries again at once gains nothing.
        let retry_after = retry_after.unwrap_or_default().max(SHORTEST_RETRY);
        Error::new(Reason::Overloaded, text).with_retry_after(retry_after)
    }
}

/// The error of a request that the model will not get to.
fn stopped() -> Error {
    Error::new(Reason::Unavailable, "the model has stopped").with_retry_after(Duration::from_secs(1))
}

impl PendingRequest {
    /// What the next pass has given, until all sentences are done.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`] if a pass failed, [`Reason::Unavailable`] if the model has stopped.
    pub async fn next(&mut self) -> Option<Result<BatchResult, Error>> {
        if self.left == 0 {
            return None;
        }
        let outcome = self.done.next().await.unwrap_or_else(|| Err(stopped()));
        if let Ok(done) = &outcome {
            self.left -= done.range.len();
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
mod tests {
    use futures::FutureExt;
    use muse_telemetry::metrics::Metrics;

    use super::{super::fair_queue::QUANTUM, *};

    const MAX_WAIT: Duration = Duration::from_secs(1);

    fn queue(capacity: usize) -> Arc<Queue> {
        queue_of(capacity, MAX_WAIT)
    }

    fn queue_of(capacity: usize, max_wait: Duration) -> Arc<Queue> {
        Arc::new(Queue::new(capacity, max_wait, 1, RejectionCounters::new(&Metrics::of("muse-test"))))
    }

    fn request(lengths: &[usize]) -> Arc<Sentences> {
        let ids: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![7; length]).collect();
        Arc::new(ids.iter().map(Vec::as_slice).collect())
    }

    fn push(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> PendingRequest {
        queue.push(&User::from(user), request(lengths), None).expect("there is room")
    }

    fn refused(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> Error {
        queue.push(&User::from(user), request(lengths), None).expect_err("there is no room")
    }

    fn in_seconds(seconds: f64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs_f64(seconds))
    }

    /// The lengths of the sentences of each part.
    fn taken(queue: &Queue, most: usize) -> Vec<Vec<usize>> {
        let parts = queue.take(most).expect("it is open");
        let lengths = |part: BatchSlice| part.range.map(|index| part.sentences.length(index)).collect();
        parts.into_iter().map(lengths).collect()
    }

    #[test]
    fn a_pass_is_filled_in_order_up_to_its_bound() {
        let queue = queue(10_000);
        let _pending = [push(&queue, "a", &[100, 200, 900, 50]), push(&queue, "a", &[300])];
        assert_eq!(taken(&queue, 1_000), [vec![100, 200], vec![300]]);
        // It did not fit before; it is more than fits with anything else.
        assert_eq!(taken(&queue, 800), [[900]]);
        assert_eq!(taken(&queue, 1_000), [[50]]);
        assert_eq!(queue.lock().waiting.tokens(), 0);
    }

    #[test]
    fn small_request_waits_for_no_large_one_and_no_bulk_job() {
        let queue = queue(1 << 20);
        let _large = push(&queue, "a", &[32; 4_000]);
        let _bulk: Vec<PendingRequest> = (0..256).map(|_| push(&queue, "a", &[32; 12])).collect();
        let _small = push(&queue, "a", &[10]);
        let _other = push(&queue, "b", &[11]);
        let passes: Vec<Vec<usize>> = (0..3).map(|_| taken(&queue, 1_024).concat()).collect();
        let all = passes.concat();
        assert!(all.contains(&11) && all.contains(&10), "{passes:?}");
        assert!(all.iter().sum::<usize>() <= 1_024, "{passes:?}");
    }

    #[test]
    fn classes_of_a_user_share_the_passes_and_requests_of_a_class_do_not() {
        let queue = queue(1 << 20);
        let _large: Vec<PendingRequest> = (0..4).map(|_| push(&queue, "a", &[400; 20])).collect();
        let _small: Vec<PendingRequest> = (0..1_000).map(|_| push(&queue, "a", &[8])).collect();
        let passes: Vec<usize> = (0..8).flat_map(|_| taken(&queue, 1_024).concat()).collect();
        let tokens = |length| passes.iter().filter(|&&one| one == length).sum::<usize>();
        assert!(tokens(400).abs_diff(tokens(8)) <= 1_024, "{} and {}", tokens(400), tokens(8));
        let state = queue.lock();
        assert_eq!(state.waiting.tokens_of_class("a", Class::of_call(8_000)), 4 * 8_000 - tokens(400));
        drop(state);
        // The first of them is done before the next is begun.
        let parts: Vec<BatchSlice> = (0..16).flat_map(|_| queue.take(1_024).expect("it is open")).collect();
        let large: Vec<_> = parts.iter().filter(|part| part.sentences.length(0) == 400).collect();
        let mut order: Vec<*const Sentences> =
            large.iter().map(|part| Arc::as_ptr(&part.sentences)).collect();
        order.dedup();
        assert!(order.len() <= 3, "{} of four are begun", order.len());
    }

    #[test]
    fn newest_request_is_first_while_callers_give_up() {
        let queue = queue_of(1 << 20, Duration::from_secs(60));
        let mut pending: Vec<PendingRequest> =
            (20..30).map(|length| push(&queue, "a", &[length, 1])).collect();
        drop(pending.remove(0));
        assert_eq!(taken(&queue, 21), [[21]], "a caller who leaves at once has not given up");
        std::thread::sleep(Duration::from_millis(1_050));
        // The second of 21 is what is left of a request that was begun.
        drop(pending.remove(1));
        assert_eq!(taken(&queue, 128).concat()[..5], [1, 29, 1, 28, 1]);
        assert!(!taken(&queue, 1_000).concat().contains(&22));
    }

    #[test]
    fn patient_caller_is_served_although_others_give_up() {
        // Patient is who has waited for half of that.
        let queue = queue_of(1 << 20, Duration::from_millis(2_200));
        let _patient = push(&queue, "a", &[20]);
        let gives_up = push(&queue, "a", &[20]);
        std::thread::sleep(Duration::from_millis(1_150));
        drop(gives_up);
        let _newer = [push(&queue, "a", &[21]), push(&queue, "a", &[22])];
        assert_eq!(taken(&queue, 1_000), [[20], [22], [21]]);
    }

    #[test]
    fn users_get_the_same_number_of_tokens_whatever_their_sentences_are_like() {
        let queue = queue(1 << 20);
        let _long = push(&queue, "long", &[400; 200]);
        let _short: Vec<PendingRequest> = (0..8).map(|_| push(&queue, "short", &[8; 1_000])).collect();
        let passes: Vec<usize> = (0..60).flat_map(|_| taken(&queue, 1_024).concat()).collect();
        let tokens = |length| passes.iter().filter(|&&one| one == length).sum::<usize>();
        let (long, short) = (tokens(400), tokens(8));
        assert!(long.abs_diff(short) <= 1_024, "{long} and {short}");
        assert!(long + short > 60 * 600, "the passes are full: {}", long + short);
    }

    #[test]
    fn user_of_long_sentences_pays_for_them() {
        let queue = queue(1 << 20);
        let _bulk: Vec<PendingRequest> = (0..200).map(|_| push(&queue, "bulk", &[32; 32])).collect();
        let (mut long, mut all) = (0, 0);
        // One at a time: each leaves the user without a backlog.
        let mut pending = push(&queue, "long", &[8_192]);
        for _ in 0..60 {
            let lengths = taken(&queue, 640).concat();
            all += lengths.iter().sum::<usize>();
            if lengths.contains(&8_192) {
                long += 8_192;
                pending = push(&queue, "long", &[8_192]);
            }
        }
        drop(pending);
        assert!(long * 2 <= all + 8_192, "{long} of {all} tokens");
        assert!(long > 0);
    }

    #[test]
    fn each_idle_thread_gets_its_share() {
        let queue = queue(10_000);
        let helpers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || taken(&queue, 1_000).concat().len())
            })
            .collect();
        while queue.lock().idle < 3 {
            std::thread::yield_now();
        }
        let _ticket = push(&queue, "a", &[10; 90]);
        let mut sentences: Vec<usize> =
            helpers.into_iter().map(|helper| helper.join().expect("it takes a part")).collect();
        sentences.sort_unstable();
        assert_eq!(sentences.iter().sum::<usize>(), 90);
        assert!(sentences[2] < 60, "{sentences:?}");
    }

    #[test]
    fn passes_are_small_while_small_requests_arrive_beside_a_backlog() {
        let queue = queue(1 << 20);
        let tokens = || taken(&queue, 1_024).concat().iter().sum::<usize>();
        let _bulk: Vec<PendingRequest> = (0..64).map(|_| push(&queue, "a", &[32; 32])).collect();
        assert_eq!(tokens(), 1_024);
        let _more = push(&queue, "b", &[32; 320]);
        assert_eq!(tokens(), 1_024, "two bulk jobs share large passes");
        let _many: Vec<PendingRequest> = (0..200).map(|_| push(&queue, "c", &[100])).collect();
        queue.lock().interactive_until = None;
        let _small = push(&queue, "d", &[10]);
        for _ in 0..3 {
            assert!(tokens() <= 256);
        }
        std::thread::sleep(INTERACTIVE_FOR);
        assert!(tokens() > 960);
    }

    #[test]
    fn one_user_leaves_room_for_others() {
        let queue = queue(1_000);
        assert_eq!(Queue::largest_request(1_000), 500);
        let _all = push(&queue, "a", &[100; 5]);
        assert_eq!(refused(&queue, "a", &[1]).reason(), Reason::Overloaded);
        assert_eq!((queue.refused.room.get(), queue.refused.wait.get()), (1, 0));
        let other = push(&queue, "b", &[250]);
        assert_eq!(refused(&queue, "b", &[1]).reason(), Reason::Overloaded);
        assert!(queue.check("b", 2, None).is_err() && queue.check("c", 2, None).is_ok());
        drop(other);
        assert!(queue.check("b", 2, None).is_ok());
    }

    #[test]
    fn request_beyond_the_maximum_queueing_time_is_rejected() {
        let queue = queue(1 << 20);
        // A thousand tokens a second.
        queue.drained(100, Duration::from_millis(100));
        // The last of these waits for 900 tokens: 0.9 s by the estimate, 0.99 s with the margin.
        let _pending: Vec<PendingRequest> = (0..10).map(|_| push(&queue, "a", &[100])).collect();
        // The next one would wait for 1 s by the estimate, which is the maximum, and for 1.1 s with the margin.
        let error = refused(&queue, "a", &[100]);
        assert_eq!(error.reason(), Reason::Overloaded);
        assert!(
            error.message().contains("about 1.1 s, longer than the maximum queueing time of 1 s"),
            "{error}"
        );
        assert_eq!(error.retry_after(), Some(Duration::from_millis(100)));
        assert_eq!((queue.refused.room.get(), queue.refused.wait.get()), (0, 1));
        // The turn of another user, of another class, or with a deadline that leaves enough time, comes.
        let _other = push(&queue, "b", &[50]);
        let _large = push(&queue, "a", &[300]);
        assert!(queue.push(&User::from("a"), request(&[100]), in_seconds(5.0)).is_ok());
    }

    #[test]
    fn deadline_that_cannot_be_met_is_rejected_at_once() {
        let queue = queue(1 << 20);
        queue.drained(100, Duration::from_millis(100));
        // An idle queue tries, whatever the estimate.
        assert!(queue.check("a", 1_000, in_seconds(0.1)).is_ok());
        let _ticket = push(&queue, "a", &[50; 8]);
        let error = queue.check("a", 600, in_seconds(0.5)).expect_err("that takes 0.7 s");
        assert_eq!(error.reason(), Reason::Overloaded);
        assert!(
            error.message().contains("cannot finish before its deadline: that takes about 0.7 s"),
            "{error}"
        );
        let wait = error.retry_after().expect("it names a time");
        assert!((Duration::from_millis(190)..Duration::from_millis(250)).contains(&wait), "{wait:?}");
        assert_eq!((queue.refused.deadline.get(), queue.refused.wait.get()), (1, 0));
        assert!(queue.check("a", 600, in_seconds(0.75)).is_err(), "that is too close");
        assert!(queue.check("a", 600, in_seconds(0.9)).is_ok());
    }

    #[test]
    fn request_without_sentences_is_done_at_once() {
        let queue = queue(1_000);
        let mut pending = push(&queue, "a", &[]);
        assert!(pending.next().now_or_never().is_some_and(|next| next.is_none()));
        let _ticket = push(&queue, "a", &[QUANTUM]);
        assert_eq!(taken(&queue, 1_000), [[QUANTUM]]);
    }

    #[test]
    fn what_its_caller_does_not_wait_for_is_not_computed() {
        let queue = queue(10_000);
        let gone = push(&queue, "a", &[100, 900]);
        assert_eq!(taken(&queue, 128), [[100]]);
        let _kept = push(&queue, "a", &[50]);
        drop(gone);
        assert_eq!(queue.lock().waiting.tokens(), 50);
        assert_eq!(taken(&queue, 1_000), [[50]]);
        assert_eq!(queue.lock().waiting.tokens_of("a"), 0);
    }

    #[tokio::test]
    async fn items_of_streams_fill_the_passes_and_no_more() {
        let queue = queue(1 << 20);
        // A thousand tokens a second: 125 for streams.
        queue.drained(100, Duration::from_millis(100));
        let user = User::from("a");
        // However much the user's calls have in the queue.
        let _calls = push(&queue, "a", &[1_000; 100]);
        let item = || queue.push_item(&user, request(&[100]));
        let _first = item().await.expect("there is room");
        let mut second = std::pin::pin!(item());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(queue.push_item(&User::from("b"), request(&[100])).now_or_never().is_some());
        while queue.lock().waiting.tokens_of_class("a", Class::Stream) > 0 {
            queue.take(1_000).expect("it is open");
        }
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn an_end_is_told_to_all_who_wait() {
        let queue = queue(1_000);
        let mut pending = push(&queue, "a", &[500]);
        let user = User::from("a");
        queue.drained(100, Duration::from_millis(100));
        let _item = queue.push_item(&user, request(&[100])).await.expect("there is room");
        let waiting = queue.push_item(&user, request(&[400]));
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        queue.close();
        let told = pending.next().await.expect("it is not done");
        assert_eq!(told.expect_err("it never will be").reason(), Reason::Unavailable);
        assert_eq!(waiting.await.expect_err("it is closed").reason(), Reason::Unavailable);
        assert_eq!(refused(&queue, "b", &[1]).reason(), Reason::Unavailable);
        assert!(queue.take(1_000).is_none());
    }
}
