//! The order in which sentences that wait are computed: surplus round robin, over users and within a user.
//!
//! Surplus round robin is a deficit round robin that may overdraw (Adiseshu, Parulkar and Varghese 1996): each turn is worth
//! [`QUANTUM`] tokens, and a flow that took more skips turns until that is made up for, also while nothing of it waits. It runs
//! over the users, so that nobody's job, however large, delays another user by more than a batch or two. In a user's turn it
//! runs over the classes of that user's requests, which are [sizes](Class): so a small request does not wait for a large one,
//! nor for a job of many large ones.
//!
//! Within a class, requests are served first in, first out. While callers without a deadline give up before their requests are begun,
//! those of that user are served last in, first out (adaptive LIFO; Maurer, "Fail at Scale", 2015): in an overload the oldest
//! requests are those whose callers are about to leave, and to begin with them would compute vectors for nobody. A caller who has
//! waited for [half of the maximum queueing time](FairQueue::new) is patient, and is served first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::channel::mpsc;
use muse_model::sentences::Sentences;
use muse_proto::Error;

/// Tokens that a turn is worth.
pub(super) const QUANTUM: usize = 256;
/// Tokens that wait where there is a backlog.
const BACKLOG: usize = 1024;
/// A caller who leaves after this wait has given up; one who leaves sooner may have cancelled for other reasons.
const GIVES_UP_AFTER: Duration = Duration::from_secs(1);
/// For how long a user's requests are served last in, first out after a caller has given up.
const LIFO_FOR: Duration = Duration::from_secs(10);

/// Who sent a request.
pub type User = Arc<str>;

/// What of a request was in one pass.
#[derive(Debug)]
pub struct BatchSlice {
    /// The request's sentences,
    pub sentences: Arc<Sentences>,
    /// which of them are in this pass,
    pub range: Range<usize>,
    /// and where its vectors go.
    pub done: Sender,
}

/// What a request gets back from a pass.
#[derive(Debug)]
pub struct BatchResult {
    /// Which of its sentences were in it.
    pub range: Range<usize>,
    /// Their vectors, as packed little-endian `f32`.
    pub vectors: bytes::Bytes,
    /// When the pass began,
    pub began: Instant,
    /// and when it was over.
    pub ended: Instant,
}

/// Where the results of a request go.
pub(super) type Sender = mpsc::UnboundedSender<Result<BatchResult, Error>>;

/// The class of a request, within which requests wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// A call with 4^n to 4^(n+1) - 1 tokens.
    Size(u32),
    /// Items of streams.
    Stream,
}

impl Class {
    /// The class of a call with so many tokens.
    pub(super) fn of_call(tokens: usize) -> Self {
        Self::Size(tokens.max(1).ilog2() / 2)
    }

    /// Whether it is that of calls with less than a turn's worth of tokens.
    fn is_small(self) -> bool {
        matches!(self, Self::Size(size) if size < QUANTUM.ilog2() / 2)
    }
}

/// A request in the queue.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) user: User,
    pub(super) class: Class,
    id: u64,
}

/// Requests that wait, by user.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    users: HashMap<User, Backlog>,
    /// The users with a backlog or a debt, the one whose turn it is first.
    order: VecDeque<User>,
    tokens: usize,
    next_id: u64,
    oldest_first_after: Duration,
}

/// The requests of one user.
#[derive(Debug, Default)]
struct Backlog {
    tokens: usize,
    turn: Turn,
    /// The class whose turn it is first.
    lines: VecDeque<Line>,
    /// When a caller last gave up.
    gave_up: Option<Instant>,
}

/// The requests of one class of a user.
#[derive(Debug)]
struct Line {
    class: Class,
    tokens: usize,
    turn: Turn,
    /// In order of arrival.
    requests: BTreeMap<u64, Waiting>,
    /// The one of which some sentences were taken.
    begun: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    has_deadline: bool,
    sentences: Arc<Sentences>,
    /// The first sentence that was not taken yet.
    next: usize,
    done: Sender,
}

/// The credit of a flow in surplus round robin.
#[derive(Debug, Default)]
struct Turn {
    /// Tokens that may yet be taken; below zero when more were taken.
    credit: isize,
    /// Whether the credit of its present turn was added.
    has_turn: bool,
}

impl Turn {
    /// Whether the flow may take more in its present turn, which ends if not.
    fn goes_on(&mut self) -> bool {
        if !self.has_turn {
            self.has_turn = true;
            self.credit += QUANTUM as isize;
        }
        self.has_turn = self.credit > 0;
        self.has_turn
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
        let lines = self.users.get(user).map(|backlog| &backlog.lines);
        lines.into_iter().flatten().find(|line| line.class == class).map_or(0, |line| line.tokens)
    }

    /// Tokens that would be taken before all of a new request of a user, of so many tokens, were. While the user's requests are
    /// served last in, first out, those before it come after it if it has a deadline; one without might have to wait for them, and
    /// for longer than the maximum queueing time.
    pub(super) fn ahead_of(&self, user: &str, class: Class, tokens: usize, has_deadline: bool) -> usize {
        let newest_first = has_deadline && self.users.get(user).is_some_and(Backlog::serves_newest_first);
        let same_class =
            if newest_first { self.patient_tokens(user, class) } else { self.tokens_of_class(user, class) };
        // Other flows get as much service as this one, as long as they have a backlog.
        let others = |own: usize, backlogs: &mut dyn Iterator<Item = usize>| -> usize {
            backlogs.map(|backlog| backlog.min(own + tokens)).sum()
        };
        let lines = self.users.get(user).map(|backlog| &backlog.lines);
        let other_classes = lines.into_iter().flatten().filter(|line| line.class != class);
        let own = same_class + others(same_class, &mut other_classes.map(|line| line.tokens));
        let other_users = self.users.iter().filter(|(other, _)| &***other != user);
        own + others(own, &mut other_users.map(|(_, backlog)| backlog.tokens))
    }

    /// Tokens of the requests of a class that are served before newer ones, although the newest come first.
    fn patient_tokens(&self, user: &str, class: Class) -> usize {
        let lines = self.users.get(user).map(|backlog| &backlog.lines);
        let line = lines.into_iter().flatten().find(|line| line.class == class);
        let requests = line.into_iter().flat_map(|line| line.requests.values());
        let patient = requests.take_while(|waiting| waiting.since.elapsed() >= self.oldest_first_after);
        patient.map(|waiting| waiting.sentences.ids(waiting.next..waiting.sentences.len()).len()).sum()
    }

    /// Whether a new request is a small one that has no others of its class before it, beside a backlog of large ones.
    pub(super) fn is_interactive(&self, user: &str, class: Class) -> bool {
        let is_new = class.is_small() && self.tokens > BACKLOG && self.tokens_of_class(user, class) == 0;
        let lines = || self.users.values().flat_map(|backlog| &backlog.lines);
        is_new
            && lines().filter(|line| !line.class.is_small()).map(|line| line.tokens).sum::<usize>() > BACKLOG
    }

    /// Appends a request of a user.
    pub(super) fn push(
        &mut self,
        user: &User,
        class: Class,
        has_deadline: bool,
        sentences: Arc<Sentences>,
        done: Sender,
    ) -> Key {
        let id = self.next_id;
        self.next_id += 1;
        let (tokens, key) = (sentences.tokens(), Key { user: Arc::clone(user), class, id });
        if sentences.is_empty() {
            // There is nothing to wait for.
            return key;
        }
        self.tokens += tokens;
        let backlog = self.users.entry(Arc::clone(user)).or_insert_with(|| {
            self.order.push_back(Arc::clone(user));
            Backlog::default()
        });
        backlog.tokens += tokens;
        let line = backlog.line(class);
        line.tokens += tokens;
        line.requests.insert(id, Waiting { since: Instant::now(), has_deadline, sentences, next: 0, done });
        key
    }

    /// Takes sentences, turn by turn, until a batch of `most` tokens is full or nothing waits.
    pub(super) fn gather(&mut self, most: usize) -> Vec<BatchSlice> {
        let mut parts: Vec<BatchSlice> = Vec::new();
        let (mut room, oldest_first_after) = (most, self.oldest_first_after);
        while self.tokens > 0 && room > 0 {
            let Some(user) = self.order.front() else { break };
            let Some(backlog) = self.users.get_mut(user) else {
                self.order.pop_front();
                continue;
            };
            if !backlog.turn.goes_on() {
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
            let Some(part) =
                backlog.take(if parts.is_empty() { usize::MAX } else { room }, room, oldest_first_after)
            else {
                break;
            };
            let taken = part.sentences.ids(part.range.clone()).len();
            self.tokens -= taken;
            room = room.saturating_sub(taken);
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
        }
        if self.tokens == 0 {
            // Nobody is left to whom anything is owed.
            self.clear();
        }
        parts
    }

    /// Removes what is left of a request whose caller has left.
    pub(super) fn cancel(&mut self, Key { user, class, id }: &Key) {
        let Some(backlog) = self.users.get_mut(user) else { return };
        let Some(place) = backlog.lines.iter().position(|line| line.class == *class) else { return };
        let line = &mut backlog.lines[place];
        let Some(waiting) = line.requests.remove(id) else { return };
        let left = waiting.sentences.ids(waiting.next..waiting.sentences.len()).len();
        line.tokens -= left;
        line.begun = line.begun.filter(|begun| begun != id);
        // One whose deadline has passed was expected to be done: its estimate was wrong, which says nothing of the others.
        if waiting.next == 0 && !waiting.has_deadline && waiting.since.elapsed() > GIVES_UP_AFTER {
            backlog.gave_up = Some(Instant::now());
        }
        backlog.tokens -= left;
        self.tokens -= left;
        if self.tokens == 0 {
            self.clear();
        }
    }

    /// Drops all that waits, and all debts.
    pub(super) fn clear(&mut self) {
        let Self { next_id, oldest_first_after, .. } = *self;
        *self = Self { next_id, oldest_first_after, ..Self::default() };
    }
}

impl Backlog {
    fn line(&mut self, class: Class) -> &mut Line {
        let place = self.lines.iter().position(|line| line.class == class).unwrap_or_else(|| {
            self.lines.push_back(Line {
                class,
                tokens: 0,
                turn: Turn::default(),
                requests: BTreeMap::new(),
                begun: None,
            });
            self.lines.len() - 1
        });
        &mut self.lines[place]
    }

    fn serves_newest_first(&self) -> bool {
        self.gave_up.is_some_and(|when| when.elapsed() < LIFO_FOR)
    }

    /// Takes sentences of the request whose turn it is: the first if it has at most `first` tokens, and further ones
    /// while the user and the class have credit and they fit into `room` tokens. Nothing, if the first does not fit.
    fn take(&mut self, first: usize, room: usize, oldest_first_after: Duration) -> Option<BatchSlice> {
        let newest_first_within = self.serves_newest_first().then_some(oldest_first_after);
        let line = loop {
            let line = self.lines.front_mut()?;
            match (line.turn.goes_on(), line.tokens) {
                (false, _) => self.lines.rotate_left(1),
                // The debt is paid.
                (true, 0) => drop(self.lines.pop_front()),
                (true, _) => break self.lines.front_mut()?,
            }
        };
        let credit = self.turn.credit.min(line.turn.credit);
        let part = line.take(first, room, credit, newest_first_within)?;
        let taken = part.sentences.ids(part.range.clone()).len();
        self.tokens -= taken;
        self.turn.credit -= taken as isize;
        line.turn.credit -= taken as isize;
        Some(part)
    }
}

impl Line {
    /// The request whose turn it is: the oldest, or the newest if all have waited for less than `newest_first_within`.
    fn next(&self, newest_first_within: Option<Duration>) -> Option<u64> {
        let (&oldest, waiting) = self.requests.first_key_value()?;
        let newest_first = newest_first_within.is_some_and(|wait| waiting.since.elapsed() < wait);
        if newest_first { self.requests.last_key_value().map(|(&newest, _)| newest) } else { Some(oldest) }
    }

    /// Takes sentences of one request, as long as there is credit. It may be overdrawn by the last of them.
    fn take(
        &mut self,
        first: usize,
        room: usize,
        credit: isize,
        newest_first_within: Option<Duration>,
    ) -> Option<BatchSlice> {
        let id = self.begun.or_else(|| self.next(newest_first_within))?;
        let waiting = self.requests.get_mut(&id)?;
        let begin = waiting.next;
        let (mut taken, mut fits) = (0, first);
        while waiting.next < waiting.sentences.len() && (taken as isize) < credit {
            let length = waiting.sentences.length(waiting.next);
            if taken + length > fits {
                break;
            }
            taken += length;
            fits = room;
            waiting.next += 1;
        }
        if waiting.next == begin {
            return None;
        }
        self.tokens -= taken;
        let range = begin..waiting.next;
        let part =
            BatchSlice { sentences: Arc::clone(&waiting.sentences), range, done: waiting.done.clone() };
        let is_whole = waiting.next == waiting.sentences.len();
        self.begun = (!is_whole).then_some(id);
        if is_whole {
            self.requests.remove(&id);
        }
        Some(part)
    }
}
