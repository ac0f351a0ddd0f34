//! What waits for a forward pass, and whose turn it is.
//!
//! Turns go round the users by surplus round robin (a deficit round robin that may overdraw; Adiseshu, Parulkar and
//! Varghese 1996): each turn is worth [`QUANTUM`] tokens, and who took more waits until it is made up for. So nobody's
//! job, however large, keeps another's sentence waiting for more than a pass or two.
//!
//! A user's requests come one after the other, but for one of more than [`SLICE`] tokens, which goes to the end of the
//! user's line after so many and comes again. So a large one does not keep a small one waiting, and those of common size
//! are not all halfway done for twice as long as each would have to wait.
//!
//! A request is admitted whole or not at all, and under two conditions. One bounds memory: a user may hold as many
//! tokens as are left free for others (the dynamic threshold of Choudhury and Hahne 1998), so that there is room for a
//! newcomer always. The other bounds the wait, by the rate at which the queue is seen to drain: see [`Queue::new`].

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use muse_proto::{Error, Reason};
use tokio::sync::{Notify, mpsc};

use super::drain::DrainRate;
use crate::{metrics::Refused, sentences::Sentences};

/// Tokens that a turn is worth.
const QUANTUM: usize = 256;
/// Tokens of a request after which the user's next one comes before the rest of it.
const SLICE: usize = 2048;
/// A request may wait this many times as long as it takes to compute, should that be more than the longest wait.
const PATIENCE: usize = 16;
/// A pass is not made smaller than this many tokens for the sake of a thread that is idle.
const LEAST_SHARE: usize = 128;

/// Who sent a request.
pub type User = Arc<str>;

/// What of a request was in one pass.
#[derive(Debug)]
pub struct Part {
    /// The request's sentences,
    pub sentences: Arc<Sentences>,
    /// which of them are in this pass,
    pub range: Range<usize>,
    /// and where its vectors go.
    pub done: mpsc::UnboundedSender<Result<Done, Error>>,
}

/// What a request gets back from a pass.
#[derive(Debug)]
pub struct Done {
    /// Which of its sentences were in it.
    pub range: Range<usize>,
    /// Their vectors, as packed little-endian `f32`.
    pub vectors: bytes::Bytes,
    /// When the pass began,
    pub began: Instant,
    /// and when it was over.
    pub ended: Instant,
}

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
    users: HashMap<User, Backlog>,
    /// The users with a backlog, the one whose turn it is first.
    turns: VecDeque<User>,
    tokens: usize,
    next_id: u64,
    /// Threads that wait for work.
    idle: usize,
    drain: DrainRate,
    closed: bool,
}

/// What one user has waiting.
#[derive(Debug, Default)]
struct Backlog {
    tokens: usize,
    /// Tokens that may yet be taken; below zero when more were taken.
    credit: isize,
    /// Whether the credit of its present turn was added.
    has_turn: bool,
    requests: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    sentences: Arc<Sentences>,
    /// The first sentence that was not taken yet.
    next: usize,
    /// Tokens that were taken since it came to the front.
    slice: usize,
    done: mpsc::UnboundedSender<Result<Done, Error>>,
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
        self.lock().tokens
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
        let (sender, done) = mpsc::unbounded_channel();
        let (id, left) = (state.next_id, sentences.len());
        state.next_id += 1;
        state.tokens += sentences.tokens();
        let state = &mut *state;
        let backlog = state.users.entry(Arc::clone(user)).or_insert_with(|| {
            state.turns.push_back(Arc::clone(user));
            Backlog::default()
        });
        backlog.tokens += sentences.tokens();
        backlog.requests.push_back(Waiting {
            id,
            sentences: Arc::clone(sentences),
            next: 0,
            slice: 0,
            done: sender,
        });
        self.work.notify_one();
        Ok(Ticket { queue: Arc::clone(self), user: Arc::clone(user), id, left, done })
    }

    /// What the next pass takes, at most `most` tokens (a longer sentence is a pass of its own), as soon as anything
    /// waits; nothing once the queue is closed.
    pub fn take(&self, most: usize) -> Option<Vec<Part>> {
        let mut state = self.lock();
        state.idle += 1;
        while state.tokens == 0 && !state.closed {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        if state.closed {
            return None;
        }
        // Those that are idle get their share.
        let share = state.tokens.div_ceil(state.idle + 1);
        let parts = state.gather(share.max(LEAST_SHARE).min(most));
        if state.tokens > 0 && state.idle > 0 {
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
        state.users.clear();
        state.turns.clear();
        state.tokens = 0;
        drop(state);
        self.work.notify_all();
        self.room.notify_waiters();
    }

    fn admit(&self, state: &State, user: &str, tokens: usize, patience: Patience) -> Result<(), Refusal> {
        if state.closed {
            return Err(Refusal::Closed);
        }
        let full = |bound, excess| Refusal::Full { bound, drained_in: state.drain.time_for(excess) };
        let backlog = state.users.get(user);
        let own = backlog.map_or(0, |backlog| backlog.tokens);
        let free = self.capacity.saturating_sub(state.tokens + tokens);
        if own + tokens > free {
            return Err(full(Bound::Room, own + tokens - free));
        }
        // Each of the user's requests gets a slice for each of this one's, and each other user as much as this one.
        let requests = backlog.map_or(0, |backlog| backlog.requests.len());
        let ahead_of_own = own.min(requests * tokens.max(SLICE));
        let others = state.users.len() - usize::from(backlog.is_some());
        let ahead = ahead_of_own + (others * (ahead_of_own + tokens)).min(state.tokens - own);
        let Some(bound) = state.drain.tokens_in(self.longest_wait) else { return Ok(()) };
        let bound = match patience {
            Patience::Call => bound.max(PATIENCE * tokens),
            Patience::Stream if own == 0 => return Ok(()),
            Patience::Stream => bound / 2,
        };
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

impl State {
    /// Takes sentences off the queue, turn by turn, until a pass of `most` tokens is full or nothing waits.
    fn gather(&mut self, most: usize) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut room = most;
        while let Some(user) = self.turns.front() {
            let Some(backlog) = self.users.get_mut(user) else {
                self.turns.pop_front();
                continue;
            };
            if !backlog.has_turn {
                backlog.has_turn = true;
                backlog.credit += QUANTUM as isize;
            }
            if backlog.credit <= 0 {
                backlog.has_turn = false;
                self.turns.rotate_left(1);
                continue;
            }
            // One that is longer than a pass is taken alone.
            let Some(part) = backlog.turn(if parts.is_empty() { usize::MAX } else { room }, room) else {
                break;
            };
            let taken = part.sentences.ids(part.range.clone()).len();
            self.tokens -= taken;
            room = room.saturating_sub(taken);
            if backlog.requests.is_empty() {
                self.users.remove(user);
                self.turns.pop_front();
            }
            // Two turns of one request in a row are one part.
            match parts.last_mut() {
                Some(last)
                    if last.range.end == part.range.start
                        && Arc::ptr_eq(&last.sentences, &part.sentences) =>
                {
                    last.range.end = part.range.end;
                }
                _ => parts.push(part),
            }
            if room == 0 {
                break;
            }
        }
        parts
    }

    fn abandon(&mut self, user: &str, id: u64) {
        let Some(backlog) = self.users.get_mut(user) else { return };
        let Some(place) = backlog.requests.iter().position(|waiting| waiting.id == id) else { return };
        let Some(waiting) = backlog.requests.remove(place) else { return };
        let left = waiting.sentences.ids(waiting.next..waiting.sentences.len()).len();
        backlog.tokens -= left;
        self.tokens -= left;
        if backlog.requests.is_empty() {
            self.users.remove(user);
            self.turns.retain(|other| &**other != user);
        }
    }
}

impl Backlog {
    /// Takes sentences of the request whose turn it is: the first if it has at most `first` tokens, and further ones
    /// while the user has credit and they fit into `room` tokens. Nothing, if the first does not fit.
    fn turn(&mut self, first: usize, room: usize) -> Option<Part> {
        let mut waiting = self.requests.pop_front()?;
        let begin = waiting.next;
        let (mut taken, mut fits) = (0, first);
        while waiting.next < waiting.sentences.len() && self.credit > 0 && waiting.slice + taken < SLICE {
            let length = waiting.sentences.length(waiting.next);
            if taken + length > fits {
                break;
            }
            taken += length;
            fits = room;
            self.credit -= length as isize;
            waiting.next += 1;
        }
        self.tokens -= taken;
        let range = begin..waiting.next;
        let part = Part { sentences: Arc::clone(&waiting.sentences), range, done: waiting.done.clone() };
        waiting.slice += taken;
        if waiting.next < waiting.sentences.len() {
            if waiting.slice < SLICE {
                self.requests.push_front(waiting);
            } else {
                self.requests.push_back(Waiting { slice: 0, ..waiting });
            }
        }
        (!part.range.is_empty()).then_some(part)
    }
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
        let outcome = self.done.recv().await.unwrap_or_else(|| Err(stopped()));
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
        self.queue.lock().abandon(&self.user, self.id);
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
        assert_eq!(queue.lock().tokens, 0);
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
        assert_eq!(queue.lock().tokens, 50);
        assert_eq!(taken(&queue, 1_000), [[50]]);
        assert!(queue.lock().users.is_empty() && queue.lock().turns.is_empty());
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
        assert_eq!(queue.lock().tokens, 400);
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
