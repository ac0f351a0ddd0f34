//! What waits for a forward pass: who gets in, and how a caller and a pass find each other. Whose turn it is, is the business of
//! [`turns`](super::turns).
//!
//! A request is admitted whole or not at all, and under two conditions. One bounds memory: a user may hold as many
//! tokens as are left free for others (the dynamic threshold of Choudhury and Hahne 1998), so that there is room for a
//! newcomer always. The other bounds the wait, by the rate at which the queue is seen to drain: see [`Queue::new`].

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, channel::mpsc};
use muse_proto::{Error, Reason};
use tokio::sync::Notify;

pub use super::turns::{Done, Part, User};
use super::{
    drain::DrainRate,
    turns::{QUANTUM, Turns},
};
use crate::{metrics::Refused, sentences::Sentences};

/// A request may wait this many times as long as it takes to compute, should that be more than the longest wait.
const PATIENCE: usize = 16;
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
    longest_wait: Duration,
    refused: Refused,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    /// Threads that wait for work.
    idle: usize,
    drain: DrainRate,
    closed: bool,
}

/// A request in the queue. What has not been taken when it is dropped is never computed.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    user: User,
    id: u64,
    /// Its sentences that were not answered yet.
    left: usize,
    done: mpsc::UnboundedReceiver<Result<Done, Error>>,
}

/// Whether a request is refused or waits if there is no room.
#[derive(Clone, Copy)]
enum Patience {
    Call,
    /// Leaves half of the room to calls, so that they need not be refused while it waits.
    Stream,
}

/// What a request would exceed.
#[derive(Clone, Copy)]
enum Bound {
    Room,
    Wait,
}

/// Why a request is not admitted.
enum Refusal {
    Closed,
    Full { bound: Bound, drained_in: Option<Duration> },
}

impl Queue {
    /// A queue of at most `capacity` tokens, for passes on so many threads.
    ///
    /// A request is admitted if it will be its turn within `longest_wait`, or within a few times as long as it will take
    /// itself.
    pub fn new(capacity: usize, longest_wait: Duration, threads: usize, refused: Refused) -> Self {
        let state = State { drain: DrainRate::of_threads(threads), ..State::default() };
        let (work, room) = (Condvar::new(), Notify::new());
        Self { state: Mutex::new(state), work, room, capacity, longest_wait, refused }
    }

    /// Tokens that may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> usize {
        self.lock().turns.tokens()
    }

    /// The most tokens that a request can have.
    pub fn largest_request(capacity: usize) -> usize {
        // As the only one it may leave as much free.
        capacity / 2
    }

    /// Puts a request into the queue if there is room.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if too much is waiting, with the time after which that will have been done;
    /// [`Reason::Unavailable`] if the model has stopped.
    pub fn push(self: &Arc<Self>, user: &User, sentences: Arc<Sentences>) -> Result<Ticket, Error> {
        self.try_push(user, &sentences, Patience::Call).map_err(|refusal| self.error(&refusal))
    }

    /// Puts a request into the queue as soon as there is room, and some to spare for calls that do not wait for it.
    ///
    /// # Errors
    ///
    /// [`Reason::Unavailable`] if the model has stopped.
    pub async fn push_when_there_is_room(
        self: &Arc<Self>,
        user: &User,
        sentences: Arc<Sentences>,
    ) -> Result<Ticket, Error> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // From here on no notice is missed.
            room.as_mut().enable();
            match self.try_push(user, &sentences, Patience::Stream) {
                Ok(ticket) => return Ok(ticket),
                Err(refusal @ Refusal::Closed) => return Err(self.error(&refusal)),
                Err(Refusal::Full { .. }) => room.await,
            }
        }
    }

    /// Whether a request of so many tokens would be admitted now.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`].
    pub fn check_room(&self, user: &str, tokens: usize) -> Result<(), Error> {
        self.admit(&self.lock(), user, tokens, Patience::Call).map_err(|refusal| self.error(&refusal))
    }

    /// Whether there is no room even for a small request of a user of whom nothing waits.
    pub(crate) fn is_full(&self) -> bool {
        // A turn's worth; and no user has this name.
        self.admit(&self.lock(), "", QUANTUM, Patience::Call).is_err()
    }

    fn try_push(
        self: &Arc<Self>,
        user: &User,
        sentences: &Arc<Sentences>,
        patience: Patience,
    ) -> Result<Ticket, Refusal> {
        let mut state = self.lock();
        self.admit(&state, user, sentences.tokens(), patience)?;
        let (sender, done) = mpsc::unbounded();
        let id = state.turns.push(user, Arc::clone(sentences), sender);
        self.work.notify_one();
        Ok(Ticket { queue: Arc::clone(self), user: Arc::clone(user), id, left: sentences.len(), done })
    }

    /// What the next pass takes, at most `most` tokens (a longer sentence is a pass of its own), as soon as anything
    /// waits; nothing once the queue is closed.
    pub fn take(&self, most: usize) -> Option<Vec<Part>> {
        let mut state = self.lock();
        state.idle += 1;
        while state.turns.tokens() == 0 && !state.closed {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        if state.closed {
            return None;
        }
        // Those that are idle get their share.
        let share = state.turns.tokens().div_ceil(state.idle + 1);
        let parts = state.turns.gather(share.max(LEAST_SHARE).min(most));
        if state.turns.tokens() > 0 && state.idle > 0 {
            self.work.notify_one();
        }
        drop(state);
        self.room.notify_waiters();
        Some(parts)
    }

    /// Counts a pass towards the rate at which the queue drains.
    pub fn drained(&self, tokens: usize, took: Duration) {
        self.lock().drain.add(tokens, took);
    }

    /// Ends it: nothing is taken from it any more, and what waits is told.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.turns.clear();
        drop(state);
        self.work.notify_all();
        self.room.notify_waiters();
    }

    fn admit(&self, state: &State, user: &str, tokens: usize, patience: Patience) -> Result<(), Refusal> {
        if state.closed {
            return Err(Refusal::Closed);
        }
        let full = |bound, excess| Refusal::Full { bound, drained_in: state.drain.time_for(excess) };
        let own = state.turns.tokens_of(user);
        let free = self.capacity.saturating_sub(state.turns.tokens() + tokens);
        if own + tokens > free {
            return Err(full(Bound::Room, own + tokens - free));
        }
        let Some(bound) = state.drain.tokens_in(self.longest_wait) else { return Ok(()) };
        let bound = match patience {
            Patience::Call => bound.max(PATIENCE * tokens),
            Patience::Stream if own == 0 => return Ok(()),
            Patience::Stream => bound / 2,
        };
        let ahead = state.turns.ahead_of(user, tokens);
        if ahead > bound {
            return Err(full(Bound::Wait, ahead - bound));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds it can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal, and tells it.
    fn error(&self, refusal: &Refusal) -> Error {
        let Refused { room, wait, stopped: closed } = &self.refused;
        let counter = match refusal {
            Refusal::Closed => closed,
            Refusal::Full { bound: Bound::Room, .. } => room,
            Refusal::Full { bound: Bound::Wait, .. } => wait,
        };
        counter.inc();
        match refusal {
            Refusal::Closed => stopped(),
            Refusal::Full { drained_in, .. } => {
                let error = Error::new(Reason::Overloaded, "too much is waiting; try again later");
                match drained_in {
                    Some(wait) => error.with_retry_after(*wait),
                    None => error,
                }
            }
        }
    }
}

/// The error of a request that the model will not get to.
fn stopped() -> Error {
    Error::new(Reason::Unavailable, "the model has stopped")
}

impl Ticket {
    /// What the next pass has given, until all sentences are done.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`] if a pass failed, [`Reason::Unavailable`] if the model has stopped.
    pub async fn next(&mut self) -> Option<Result<Done, Error>> {
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

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.left == 0 {
            return;
        }
        self.queue.lock().turns.abandon(&self.user, self.id);
        self.queue.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use muse_chassis::metrics::Metrics;

    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn queue(capacity: usize) -> Arc<Queue> {
        Arc::new(Queue::new(capacity, LONG, 1, Refused::new(&Metrics::of("muse-test"))))
    }

    fn request(lengths: &[usize]) -> Arc<Sentences> {
        let ids: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![7; length]).collect();
        Arc::new(ids.iter().map(Vec::as_slice).collect())
    }

    fn push(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> Ticket {
        queue.push(&User::from(user), request(lengths)).expect("there is room")
    }

    fn refused(queue: &Arc<Queue>, user: &str, lengths: &[usize]) -> Error {
        queue.push(&User::from(user), request(lengths)).expect_err("there is no room")
    }

    /// The lengths of the sentences of each part.
    fn taken(queue: &Queue, most: usize) -> Vec<Vec<usize>> {
        let parts = queue.take(most).expect("it is open");
        let lengths = |part: Part| part.range.map(|index| part.sentences.length(index)).collect();
        parts.into_iter().map(lengths).collect()
    }

    #[test]
    fn a_pass_is_filled_in_order_up_to_its_bound() {
        let queue = queue(10_000);
        let _tickets = [push(&queue, "a", &[100, 200, 900, 50]), push(&queue, "a", &[60])];
        assert_eq!(taken(&queue, 1_000), [[100, 200]]);
        // It did not fit before; it is more than fits with anything else.
        assert_eq!(taken(&queue, 800), [[900]]);
        assert_eq!(taken(&queue, 1_000), [[50], [60]]);
        assert_eq!(queue.lock().turns.tokens(), 0);
    }

    #[test]
    fn a_small_request_does_not_wait_for_all_of_a_large_one() {
        let queue = queue(1 << 20);
        let _large = push(&queue, "a", &[32; 4_000]);
        let _small = push(&queue, "a", &[10]);
        let _other = push(&queue, "b", &[11]);
        // Another user's turn comes in each pass, that of the same user's next request after a slice.
        let passes: Vec<Vec<usize>> = (0..3).map(|_| taken(&queue, 1_024).concat()).collect();
        assert!(passes[0].contains(&11), "{passes:?}");
        assert!(passes.concat().contains(&10), "{passes:?}");
        let tokens: Vec<usize> = passes.iter().map(|pass| pass.iter().sum()).collect();
        assert!(tokens.iter().all(|&tokens| tokens > 1_024 - 32), "the passes are full: {tokens:?}");
    }

    #[test]
    fn users_get_the_same_number_of_tokens_whatever_their_sentences_are_like() {
        let queue = queue(1 << 20);
        let _long = push(&queue, "long", &[400; 200]);
        let _short: Vec<Ticket> = (0..8).map(|_| push(&queue, "short", &[8; 1_000])).collect();
        let passes: Vec<usize> = (0..60).flat_map(|_| taken(&queue, 1_024).concat()).collect();
        let tokens = |length| passes.iter().filter(|&&one| one == length).sum::<usize>();
        let (long, short) = (tokens(400), tokens(8));
        assert!(long.abs_diff(short) <= 1_024, "{long} and {short}");
        assert!(long + short > 60 * 600, "the passes are full: {}", long + short);
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
    fn one_user_leaves_room_for_others() {
        let queue = queue(1_000);
        assert_eq!(Queue::largest_request(1_000), 500);
        let _all = push(&queue, "a", &[100; 5]);
        assert_eq!(refused(&queue, "a", &[1]).reason(), Reason::Overloaded);
        assert_eq!((queue.refused.room.get(), queue.refused.wait.get()), (1, 0));
        let other = push(&queue, "b", &[250]);
        assert_eq!(refused(&queue, "b", &[1]).reason(), Reason::Overloaded);
        assert!(queue.check_room("b", 1).is_err() && queue.check_room("c", 1).is_ok());
        drop(other);
        assert!(queue.check_room("b", 1).is_ok());
    }

    #[test]
    fn it_is_full_when_a_newcomer_would_be_refused() {
        let queue = queue(4 * QUANTUM);
        assert!(!queue.is_full());
        // A user may take half, two users two thirds, three users three quarters.
        let mut tickets = vec![push(&queue, "a", &[2 * QUANTUM])];
        assert!(!queue.is_full());
        tickets.push(push(&queue, "b", &[QUANTUM]));
        assert!(queue.is_full());
        tickets.pop();
        assert!(!queue.is_full());
        queue.close();
        assert!(queue.is_full());
    }

    #[test]
    fn who_would_wait_too_long_is_told_how_long() {
        let queue = queue(1 << 20);
        // A thousand tokens a second.
        queue.drained(100, Duration::from_millis(100));
        let _tickets: Vec<Ticket> = (0..21).map(|_| push(&queue, "a", &[50])).collect();
        let error = refused(&queue, "a", &[50]);
        assert_eq!(error.reason(), Reason::Overloaded);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(50)));
        assert_eq!((queue.refused.room.get(), queue.refused.wait.get()), (0, 1));
        // One that takes so long itself can wait longer, and somebody else's turn comes sooner.
        let _large = push(&queue, "a", &[100]);
        let _other = push(&queue, "b", &[50]);
    }

    #[test]
    fn what_its_caller_does_not_wait_for_is_not_computed() {
        let queue = queue(10_000);
        let gone = push(&queue, "a", &[100, 900]);
        assert_eq!(taken(&queue, 128), [[100]]);
        let _kept = push(&queue, "a", &[50]);
        drop(gone);
        assert_eq!(queue.lock().turns.tokens(), 50);
        assert_eq!(taken(&queue, 1_000), [[50]]);
        assert_eq!(queue.lock().turns.tokens_of("a"), 0);
    }

    #[tokio::test]
    async fn one_that_waits_for_room_gets_it() {
        let queue = queue(1_000);
        let full = push(&queue, "a", &[500]);
        let user = User::from("a");
        let waiting = queue.push_when_there_is_room(&user, request(&[400]));
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(taken(&queue, 1_000), [[500]]);
        let _ticket = waiting.await.expect("there is room");
        drop(full);
        assert_eq!(queue.lock().turns.tokens(), 400);
    }

    #[tokio::test]
    async fn an_end_is_told_to_all_who_wait() {
        let queue = queue(1_000);
        let mut ticket = push(&queue, "a", &[500]);
        let user = User::from("a");
        let waiting = queue.push_when_there_is_room(&user, request(&[400]));
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        queue.close();
        let told = ticket.next().await.expect("it is not done");
        assert_eq!(told.expect_err("it never will be").reason(), Reason::Unavailable);
        assert_eq!(waiting.await.expect_err("it is closed").reason(), Reason::Unavailable);
        assert_eq!(refused(&queue, "b", &[1]).reason(), Reason::Unavailable);
        assert!(queue.take(1_000).is_none());
    }
}
