//! The order in which queued sentences are computed: [surplus round robin](super::round_robin) over
//! users, within a user over service classes, and within these over classes.
//!
//! A job of one user, however large, delays another user by at most a batch or two. In a user's
//! turn, requests with a [bulk key](ServiceClass::Bulk) get an eighth of the tokens while others of
//! the user wait (hierarchical fair queueing: the share of the user is divided, and no other user
//! notices), so a nightly job does not slow its owner's own searches. In either service class the
//! turns are those of [classes](SizeClass) of requests, which are sizes: so a small request waits
//! neither for a large one nor for a job of many large ones.
//!
//! Within a class, the order is first in, first out. While callers without a deadline give up
//! before their requests start, the requests of that flow are served last in, first out (adaptive
//! LIFO; Maurer, "Fail at Scale", 2015): in an overload the callers of the oldest requests are
//! about to leave, and the vectors of these requests would be useless. A caller who has waited for
//! [half of the maximum queueing time](FairQueue::new) is patient, and is served first.

mod backlog;

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::channel::mpsc;
use muse_model::sentences::TokenizedSentences;
use muse_proto::Error;

use super::flow::{FlowKey, ServiceClass, SizeClass, UserName};
use backlog::{ClassQueue, QueuedRequest, Room, ServiceBacklog, UserBacklog};

/// Queued tokens from which there is a backlog.
const BACKLOG: usize = 1024;

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

/// Identifies a queued request.
#[derive(Debug, Clone)]
pub(super) struct RequestKey {
    pub(super) flow: FlowKey,
    pub(super) class: SizeClass,
    id: u64,
}

/// Tokens that passes take before a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Until its turn.
    pub(super) begin: usize,
    /// Until its end, its own tokens included.
    pub(super) end: usize,
}

/// Queued requests, by user.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    users: HashMap<UserName, UserBacklog>,
    /// The users with a backlog or a debt, in the order of their turns.
    order: VecDeque<UserName>,
    tokens: usize,
    /// Tokens that all passes have taken.
    taken: u64,
    next_id: u64,
    oldest_first_after: Duration,
}

impl BatchSlice {
    /// Tokens of the sentences in this pass.
    fn tokens(&self) -> usize {
        self.sentences.ids(self.range.clone()).len()
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
    pub(super) fn tokens_of_user(&self, user: &str) -> usize {
        self.users.get(user).map_or(0, |backlog| backlog.tokens)
    }

    /// Tokens of one service class of a user that wait.
    pub(super) fn tokens_of_flow(&self, flow: &FlowKey) -> usize {
        self.flow(flow).map_or(0, |service| service.tokens)
    }

    /// Tokens of one class of a flow that wait.
    pub(super) fn tokens_of_class(&self, flow: &FlowKey, class: SizeClass) -> usize {
        self.flow(flow).and_then(|service| service.class(class)).map_or(0, |queue| queue.tokens)
    }

    fn flow(&self, flow: &FlowKey) -> Option<&ServiceBacklog> {
        self.users.get(&flow.user)?.service(flow.service_class)
    }

    /// What passes take before a new request of `tokens` tokens. While the requests of its flow are
    /// served last in, first out, older ones come after it if it has a deadline; one without might
    /// have to wait for them, and for longer than the maximum queueing time.
    pub(super) fn ahead_of(
        &self,
        flow: &FlowKey,
        class: SizeClass,
        tokens: usize,
        has_deadline: bool,
    ) -> Ahead {
        // Flows of equal quanta get as much service as this one, while they have a backlog.
        let others = |own: usize, backlogs: &mut dyn Iterator<Item = usize>| -> usize {
            backlogs.map(|backlog| backlog.min(own)).sum()
        };
        let user = self.users.get(&flow.user);
        let service = user.and_then(|backlog| backlog.service(flow.service_class));
        let newest_first = has_deadline && service.is_some_and(ServiceBacklog::serves_newest_first);
        let own_class = service.and_then(|service| service.class(class));
        let same_class = own_class.map_or(0, |queue| {
            if newest_first { queue.patient_tokens(self.oldest_first_after) } else { queue.tokens }
        });
        let classes = service.into_iter().flat_map(|service| &service.classes);
        let other_classes = classes.filter(|queue| queue.class != class);
        let same_service =
            same_class + others(same_class + tokens, &mut other_classes.map(|queue| queue.tokens));
        // The flows of one user get it in proportion to theirs.
        let other_service = user.and_then(|backlog| backlog.service(flow.service_class.other()));
        let most = flow.service_class.tokens_of_other(same_service + tokens);
        let own = same_service + other_service.map_or(0, |service| service.tokens.min(most));
        let other_users = self.users.iter().filter(|(user, _)| **user != flow.user);
        let ahead = own + others(own + tokens, &mut other_users.map(|(_, backlog)| backlog.tokens));
        // More if the others get more turns than they have tokens now.
        let share = own_class.and_then(|queue| queue.share.get(self.taken));
        let by_share = |tokens: usize| share.map_or(0, |share| (tokens as f64 / share) as usize);
        Ahead {
            begin: ahead.max(by_share(same_class)),
            end: (ahead + tokens).max(by_share(same_class + tokens)),
        }
    }

    /// Whether a new request shortens passes: it is small and the first of its class, beside a
    /// backlog of large ones or of bulk jobs. A bulk job is in no hurry.
    pub(super) fn shortens_passes(&self, flow: &FlowKey, class: SizeClass) -> bool {
        let is_new = flow.service_class == ServiceClass::Interactive
            && class.is_small()
            && self.tokens > BACKLOG
            && self.tokens_of_class(flow, class) == 0;
        let large = |service: &ServiceBacklog| match service.service_class {
            ServiceClass::Bulk => service.tokens,
            ServiceClass::Interactive => {
                let classes = service.classes.iter().filter(|queue| !queue.class.is_small());
                classes.map(|queue: &ClassQueue| queue.tokens).sum()
            }
        };
        is_new && self.users.values().flat_map(UserBacklog::services).map(large).sum::<usize>() > BACKLOG
    }

    /// Appends a request of a flow.
    pub(super) fn push(
        &mut self,
        flow: &FlowKey,
        class: SizeClass,
        has_deadline: bool,
        sentences: Arc<TokenizedSentences>,
        results: ResultSender,
    ) -> RequestKey {
        let id = self.next_id;
        self.next_id += 1;
        let key = RequestKey { flow: flow.clone(), class, id };
        if sentences.is_empty() {
            // It has no results to wait for.
            return key;
        }
        self.tokens += sentences.tokens();
        let backlog = self.users.entry(Arc::clone(&flow.user)).or_insert_with(|| {
            self.order.push_back(Arc::clone(&flow.user));
            UserBacklog::default()
        });
        let request = QueuedRequest::new(has_deadline, sentences, results);
        backlog.push(flow.service_class, class, id, request, self.taken);
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
            let first = if slices.is_empty() { usize::MAX } else { room };
            let room_left = Room { first, tokens: room, taken: self.taken, oldest_first_after };
            let Some(slice) = backlog.take(room_left) else { break };
            let taken = slice.tokens();
            self.tokens -= taken;
            self.taken += taken as u64;
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
    pub(super) fn cancel(&mut self, RequestKey { flow, class, id }: &RequestKey) {
        let Some(backlog) = self.users.get_mut(&flow.user) else { return };
        self.tokens -= backlog.cancel(flow.service_class, *class, *id);
        if self.tokens == 0 {
            self.clear();
        }
    }

    /// Drops all requests and debts.
    pub(super) fn clear(&mut self) {
        let Self { taken, next_id, oldest_first_after, .. } = *self;
        *self = Self { taken, next_id, oldest_first_after, ..Self::default() };
    }
}
