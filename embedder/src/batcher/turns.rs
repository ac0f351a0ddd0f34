//! Whose sentences the next pass takes.
//!
//! Turns go round the users by surplus round robin (a deficit round robin that may overdraw; Adiseshu, Parulkar and
//! Varghese 1996): each turn is worth [`QUANTUM`] tokens, and who took more waits until it is made up for. So nobody's
//! job, however large, keeps another's sentence waiting for more than a pass or two.
//!
//! A user's requests come one after the other, but for one of more than [`SLICE`] tokens, which goes to the end of the
//! user's line after so many and comes again. So a large one does not keep a small one waiting, and those of common size
//! are not all halfway done for twice as long as each would have to wait.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Instant,
};

use futures::channel::mpsc;
use muse_proto::Error;

use crate::sentences::Sentences;

/// Tokens that a turn is worth.
pub(super) const QUANTUM: usize = 256;
/// Tokens of a request after which the user's next one comes before the rest of it.
const SLICE: usize = 2048;

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

/// What waits, by users.
#[derive(Debug, Default)]
pub(super) struct Turns {
    users: HashMap<User, Backlog>,
    /// The users with a backlog, the one whose turn it is first.
    order: VecDeque<User>,
    tokens: usize,
    next_id: u64,
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

impl Turns {
    /// Tokens that wait.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of one user that wait.
    pub(super) fn tokens_of(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |backlog| backlog.tokens)
    }

    /// Tokens that would be taken before all of a new request of a user, of so many tokens, were.
    pub(super) fn ahead_of(&self, user: &str, tokens: usize) -> usize {
        let backlog = self.users.get(user);
        let (own, requests) = backlog.map_or((0, 0), |backlog| (backlog.tokens, backlog.requests.len()));
        // Each of the user's requests gets a slice for each of this one's, and each other user as much as this one.
        let ahead_of_own = own.min(requests * tokens.max(SLICE));
        let others = self.users.len() - usize::from(backlog.is_some());
        ahead_of_own + (others * (ahead_of_own + tokens)).min(self.tokens - own)
    }

    /// Puts a request at the end of the user's line. It is known by the number that is returned.
    pub(super) fn push(
        &mut self,
        user: &User,
        sentences: Arc<Sentences>,
        done: mpsc::UnboundedSender<Result<Done, Error>>,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.tokens += sentences.tokens();
        let backlog = self.users.entry(Arc::clone(user)).or_insert_with(|| {
            self.order.push_back(Arc::clone(user));
            Backlog::default()
        });
        backlog.tokens += sentences.tokens();
        backlog.requests.push_back(Waiting { id, sentences, next: 0, slice: 0, done });
        id
    }

    /// Takes sentences, turn by turn, until a pass of `most` tokens is full or nothing waits.
    pub(super) fn gather(&mut self, most: usize) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut room = most;
        while let Some(user) = self.order.front() {
            let Some(backlog) = self.users.get_mut(user) else {
                self.order.pop_front();
                continue;
            };
            if !backlog.has_turn {
                backlog.has_turn = true;
                backlog.credit += QUANTUM as isize;
            }
            if backlog.credit <= 0 {
                backlog.has_turn = false;
                self.order.rotate_left(1);
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
                self.order.pop_front();
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

    /// Takes what is left of a request out of the line.
    pub(super) fn abandon(&mut self, user: &str, id: u64) {
        let Some(backlog) = self.users.get_mut(user) else { return };
        let Some(place) = backlog.requests.iter().position(|waiting| waiting.id == id) else { return };
        let Some(waiting) = backlog.requests.remove(place) else { return };
        let left = waiting.sentences.ids(waiting.next..waiting.sentences.len()).len();
        backlog.tokens -= left;
        self.tokens -= left;
        if backlog.requests.is_empty() {
            self.users.remove(user);
            self.order.retain(|other| &**other != user);
        }
    }

    /// Drops all that waits.
    pub(super) fn clear(&mut self) {
        self.users.clear();
        self.order.clear();
        self.tokens = 0;
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
