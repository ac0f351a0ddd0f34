//! The order in which queued sentences are computed: surplus round robin, over users and within a
//! user over classes.
//!
//! Surplus round robin is a deficit round robin that may overdraw (Adiseshu, Parulkar and Varghese
//! 1996): each turn is worth [`QUANTUM`] tokens, and a flow that took more skips turns until that
//! is made up for, also while its backlog is empty. It runs over the users, so that a job of one
//! user, however large, delays another user by at most a batch or two. In a user's turn it runs
//! over the [classes](Class) of that user's requests, which are sizes: so a small request waits
//! neither for a large one nor for a job of many large ones.
//!
//! Within a class, the order is first in, first out. While callers without a deadline give up
//! before their requests start, the requests of that user are served last in, first out (adaptive
//! LIFO; Maurer, "Fail at Scale", 2015): in an overload the callers of the oldest requests are
//! about to leave, and the vectors of these requests would be useless. A caller who has waited for
//! [half of the maximum queueing time](FairQueue::new) is patient, and is served first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::channel::mpsc;
use muse_model::sentences::TokenizedSentences;
use muse_proto::Error;

/// Tokens that a turn is worth.
pub(super) const QUANTUM: usize = 256;
/// Queued tokens from which there is a backlog.
const BACKLOG: usize = 1024;
/// A caller who leaves after this wait has given up; one who leaves sooner may have cancelled for
/// other reasons.
const GIVES_UP_AFTER: Duration = Duration::from_secs(1);
/// For how long a user's requests are served last in, first out after a caller has given up.
const LIFO_FOR: Duration = Duration::from_secs(10);

/// The name of the user who sent a request.
pub type UserName = Arc<str>;

/// The sentences of one request in one pass.
#[derive(Debug)]
pub struct BatchSlice {
    /// All sentences of the request.
    pub sentences: Arc<TokenizedSentences>,
    /// Those in this pass.
    pub range: Range<usize>,
    /// Where to send their vectors.
    pub results: ResultSender,
}

/// The result of a pass for one request.
#[derive(Debug)]
pub struct BatchResult {
    /// The sentences of the request that were in the pass.
    pub range: Range<usize>,
    /// Their vectors, as packed little-endian `f32`.
    pub vectors: bytes::Bytes,
    /// When the pass began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
}

/// The channel for the results of a request.
pub(super) type ResultSender = mpsc::UnboundedSender<Result<BatchResult, Error>>;

/// The class of a request. Requests of one class wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Calls with 4^n to 4^(n+1) - 1 tokens.
    Size(u32),
    /// Items of streams.
    Stream,
}

impl Class {
    /// The class of a call with so many tokens.
    pub(super) fn of_call(tokens: usize) -> Self {
        Self::Size(tokens.max(1).ilog2() / 2)
    }

    /// Whether its calls have fewer tokens than a turn is worth.
    fn is_small(self) -> bool {
        matches!(self, Self::Size(size) if size < QUANTUM.ilog2() / 2)
    }
}

/// Identifies a queued request.
#[derive(Debug, Clone)]
pub(super) struct RequestKey {
    pub(super) user: UserName,
    pub(super) class: Class,
    id: u64,
}

/// Queued requests, by user.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    users: HashMap<UserName, Backlog>,
    /// The users with a backlog or a debt, in the order of their turns.
    order: VecDeque<UserName>,
    tokens: usize,
    next_id: u64,
    oldest_first_after: Duration,
}

/// The requests of one user.
#[derive(Debug, Default)]
struct Backlog {
    tokens: usize,
    credit: FlowCredit,
    /// In the order of their turns.
    classes: VecDeque<ClassQueue>,
    /// When a caller last gave up.
    gave_up: Option<Instant>,
}

/// The requests of one class of a user.
#[derive(Debug)]
struct ClassQueue {
    class: Class,
    tokens: usize,
    credit: FlowCredit,
    /// In order of arrival.
    requests: BTreeMap<u64, QueuedRequest>,
    /// The request of which a pass has taken some sentences.
    started: Option<u64>,
}

#[derive(Debug)]
struct QueuedRequest {
    since: Instant,
    has_deadline: bool,
    sentences: Arc<TokenizedSentences>,
    /// The first sentence that no pass has taken.
    next: usize,
    results: ResultSender,
}

impl QueuedRequest {
    /// Tokens of the sentences that no pass has taken.
    fn tokens_left(&self) -> usize {
        self.sentences.ids(self.next..self.sentences.len()).len()
    }
}

impl BatchSlice {
    /// Tokens of the sentences in this pass.
    fn tokens(&self) -> usize {
        self.sentences.ids(self.range.clone()).len()
    }
}

/// The credit of a flow in surplus round robin.
#[derive(Debug, Default)]
struct FlowCredit {
    /// Tokens that the flow may take; below zero after it took more.
    tokens: isize,
    /// Whether the flow has its turn, and the credit of it.
    in_turn: bool,
}

impl FlowCredit {
    /// Begins or continues a turn, which ends when the credit is used up. Returns whether the flow
    /// may take tokens.
    fn continue_turn(&mut self) -> bool {
        if !self.in_turn {
            self.in_turn = true;
            self.tokens += QUANTUM as isize;
        }
        self.in_turn = self.tokens > 0;
        self.in_turn
    }

    fn spend(&mut self, tokens: usize) {
        self.tokens -= tokens as isize;
    }
}

impl FairQueue {
    /// An empty queue, in which a request without a deadline waits for `max_wait` at most.
    pub(super) fn new(max_wait: Duration) -> Self {
        Self { oldest_first_after: max_wait / 2, ..Self::default() }
    }

    /// Tokens that wait.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of one user that wait.
    pub(super) fn tokens_of(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |backlog| backlog.tokens)
    }

    /// Tokens of one class of a user that wait.
    pub(super) fn tokens_of_class(&self, user: &str, class: Class) -> usize {
        let classes = self.users.get(user).map(|backlog| &backlog.classes);
        classes.into_iter().flatten().find(|queue| queue.class == class).map_or(0, |queue| queue.tokens)
    }

    /// Tokens that passes take before the last ones of a new request of `tokens` tokens. While the
    /// user's requests are served last in, first out, older ones come after it if it has a
    /// deadline; one without might have to wait for them, and for longer than the maximum queueing
    /// time.
    pub(super) fn ahead_of(&self, user: &str, class: Class, tokens: usize, has_deadline: bool) -> usize {
        let newest_first = has_deadline && self.users.get(user).is_some_and(Backlog::serves_newest_first);
        let same_class =
            if newest_first { self.patient_tokens(user, class) } else { self.tokens_of_class(user, class) };
        // Other flows get as much service as this one, while they have a backlog.
        let others = |own: usize, backlogs: &mut dyn Iterator<Item = usize>| -> usize {
            backlogs.map(|backlog| backlog.min(own + tokens)).sum()
        };
        let classes = self.users.get(user).map(|backlog| &backlog.classes);
        let other_classes = classes.into_iter().flatten().filter(|queue| queue.class != class);
        let own = same_class + others(same_class, &mut other_classes.map(|queue| queue.tokens));
        let other_users = self.users.iter().filter(|(other, _)| &***other != user);
        own + others(own, &mut other_users.map(|(_, backlog)| backlog.tokens))
    }

    /// Tokens of the requests of patient callers of a class, which are served before newer ones
    /// even if the newest come first.
    fn patient_tokens(&self, user: &str, class: Class) -> usize {
        let classes = self.users.get(user).map(|backlog| &backlog.classes);
        let queue = classes.into_iter().flatten().find(|queue| queue.class == class);
        let requests = queue.into_iter().flat_map(|queue| queue.requests.values());
        let patient = requests.take_while(|request| request.since.elapsed() >= self.oldest_first_after);
        patient.map(QueuedRequest::tokens_left).sum()
    }

    /// Whether a new request is small and the first of its class, beside a backlog of large ones.
    pub(super) fn is_interactive(&self, user: &str, class: Class) -> bool {
        let is_new = class.is_small() && self.tokens > BACKLOG && self.tokens_of_class(user, class) == 0;
        let classes = || self.users.values().flat_map(|backlog| &backlog.classes);
        is_new
            && classes().filter(|queue| !queue.class.is_small()).map(|queue| queue.tokens).sum::<usize>()
                > BACKLOG
    }

    /// Appends a request of a user.
    pub(super) fn push(
        &mut self,
        user: &UserName,
        class: Class,
        has_deadline: bool,
        sentences: Arc<TokenizedSentences>,
        results: ResultSender,
    ) -> RequestKey {
        let id = self.next_id;
        self.next_id += 1;
        let (tokens, key) = (sentences.tokens(), RequestKey { user: Arc::clone(user), class, id });
        if sentences.is_empty() {
            // It has no results to wait for.
            return key;
        }
        self.tokens += tokens;
        let backlog = self.users.entry(Arc::clone(user)).or_insert_with(|| {
            self.order.push_back(Arc::clone(user));
            Backlog::default()
        });
        backlog.tokens += tokens;
        let queue = backlog.queue(class);
        queue.tokens += tokens;
        queue
            .requests
            .insert(id, QueuedRequest { since: Instant::now(), has_deadline, sentences, next: 0, results });
        key
    }

    /// Takes sentences, turn by turn, until a batch of `most` tokens is full or the queue is empty.
    pub(super) fn take_batch(&mut self, most: usize) -> Vec<BatchSlice> {
        let mut slices: Vec<BatchSlice> = Vec::new();
        let (mut room, oldest_first_after) = (most, self.oldest_first_after);
        while self.tokens > 0 && room > 0 {
            let Some(user) = self.order.front() else { break };
            let Some(backlog) = self.users.get_mut(user) else {
                self.order.pop_front();
                continue;
            };
            if !backlog.credit.continue_turn() {
                self.order.rotate_left(1);
                continue;
            }
            if backlog.tokens == 0 {
                // The debt is paid.
                self.users.remove(user);
                self.order.pop_front();
                continue;
            }
            // A sentence that is longer than a batch is taken alone.
            let Some(slice) =
                backlog.take(if slices.is_empty() { usize::MAX } else { room }, room, oldest_first_after)
            else {
                break;
            };
            let taken = slice.tokens();
            self.tokens -= taken;
            room = room.saturating_sub(taken);
            // Two turns of one request in a row make one slice.
            match slices.last_mut() {
                Some(last)
                    if last.range.end == slice.range.start
                        && Arc::ptr_eq(&last.sentences, &slice.sentences) =>
                {
                    last.range.end = slice.range.end;
                }
                _ => slices.push(slice),
            }
        }
        if self.tokens == 0 {
            // Debts count only while another flow has a backlog.
            self.clear();
        }
        slices
    }

    /// Removes the rest of a request whose caller has left.
    pub(super) fn cancel(&mut self, RequestKey { user, class, id }: &RequestKey) {
        let Some(backlog) = self.users.get_mut(user) else { return };
        let Some(index) = backlog.classes.iter().position(|queue| queue.class == *class) else { return };
        let queue = &mut backlog.classes[index];
        let Some(request) = queue.requests.remove(id) else { return };
        let left = request.tokens_left();
        queue.tokens -= left;
        queue.started = queue.started.filter(|started| started != id);
        // A request whose deadline has passed was expected to finish: its estimate was wrong, which
        // does not concern the others.
        if request.next == 0 && !request.has_deadline && request.since.elapsed() > GIVES_UP_AFTER {
            backlog.gave_up = Some(Instant::now());
        }
        backlog.tokens -= left;
        self.tokens -= left;
        if self.tokens == 0 {
            self.clear();
        }
    }

    /// Drops all requests and debts.
    pub(super) fn clear(&mut self) {
        let Self { next_id, oldest_first_after, .. } = *self;
        *self = Self { next_id, oldest_first_after, ..Self::default() };
    }
}

impl Backlog {
    fn queue(&mut self, class: Class) -> &mut ClassQueue {
        let index = self.classes.iter().position(|queue| queue.class == class).unwrap_or_else(|| {
            self.classes.push_back(ClassQueue {
                class,
                tokens: 0,
                credit: FlowCredit::default(),
                requests: BTreeMap::new(),
                started: None,
            });
            self.classes.len() - 1
        });
        &mut self.classes[index]
    }

    fn serves_newest_first(&self) -> bool {
        self.gave_up.is_some_and(|when| when.elapsed() < LIFO_FOR)
    }

    /// Takes sentences of the request whose turn it is: the first if it has at most `first` tokens,
    /// and further ones while the user and the class have credit and they fit into `room` tokens.
    /// Returns nothing if the first does not fit.
    fn take(&mut self, first: usize, room: usize, oldest_first_after: Duration) -> Option<BatchSlice> {
        let newest_first_within = self.serves_newest_first().then_some(oldest_first_after);
        let queue = loop {
            let queue = self.classes.front_mut()?;
            match (queue.credit.continue_turn(), queue.tokens) {
                (false, _) => self.classes.rotate_left(1),
                // The debt is paid.
                (true, 0) => drop(self.classes.pop_front()),
                (true, _) => break self.classes.front_mut()?,
            }
        };
        let credit = self.credit.tokens.min(queue.credit.tokens);
        let slice = queue.take(first, room, credit, newest_first_within)?;
        let taken = slice.tokens();
        self.tokens -= taken;
        self.credit.spend(taken);
        queue.credit.spend(taken);
        Some(slice)
    }
}

impl ClassQueue {
    /// The request whose turn it is: the oldest, or the newest if all have waited for less than
    /// `newest_first_within`.
    fn next(&self, newest_first_within: Option<Duration>) -> Option<u64> {
        let (&oldest, request) = self.requests.first_key_value()?;
        let newest_first = newest_first_within.is_some_and(|wait| request.since.elapsed() < wait);
        if newest_first { self.requests.last_key_value().map(|(&newest, _)| newest) } else { Some(oldest) }
    }

    /// Takes sentences of one request while there is credit. The last of them may overdraw it.
    fn take(
        &mut self,
        first: usize,
        room: usize,
        credit: isize,
        newest_first_within: Option<Duration>,
    ) -> Option<BatchSlice> {
        let id = self.started.or_else(|| self.next(newest_first_within))?;
        let request = self.requests.get_mut(&id)?;
        let begin = request.next;
        let (mut taken, mut fits) = (0, first);
        while request.next < request.sentences.len() && (taken as isize) < credit {
            let length = request.sentences.length(request.next);
            if taken + length > fits {
                break;
            }
            taken += length;
            fits = room;
            request.next += 1;
        }
        if request.next == begin {
            return None;
        }
        self.tokens -= taken;
        let range = begin..request.next;
        let slice =
            BatchSlice { sentences: Arc::clone(&request.sentences), range, results: request.results.clone() };
        let is_whole = request.next == request.sentences.len();
        self.started = (!is_whole).then_some(id);
        if is_whole {
            self.requests.remove(&id);
        }
        Some(slice)
    }
}
