//! The requests of one user, by service class and class.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use muse_model::sentences::TokenizedSentences;

use super::{
    super::{
        flow::{QUANTUM, ServiceClass, SizeClass},
        round_robin::{Flow, FlowCredit, next_turn},
        share::Share,
    },
    BatchSlice, ResultSender,
};

/// A caller who leaves after this wait has given up; one who leaves sooner may have cancelled for
/// other reasons.
const GIVES_UP_AFTER: Duration = Duration::from_secs(1);
/// For how long requests are served last in, first out after a caller has given up.
const LIFO_FOR: Duration = Duration::from_secs(10);

/// The requests of one user.
#[derive(Debug)]
pub(super) struct UserBacklog {
    pub(super) tokens: usize,
    pub(super) credit: FlowCredit,
    /// In the order of their turns.
    services: VecDeque<ServiceBacklog>,
}

/// The requests of one service class of a user.
#[derive(Debug)]
pub(super) struct ServiceBacklog {
    pub(super) service_class: ServiceClass,
    pub(super) tokens: usize,
    credit: FlowCredit,
    /// In the order of their turns.
    pub(super) classes: VecDeque<ClassQueue>,
    /// When a caller last gave up.
    gave_up: Option<Instant>,
}

/// The requests of one class.
#[derive(Debug)]
pub(super) struct ClassQueue {
    pub(super) class: SizeClass,
    pub(super) tokens: usize,
    credit: FlowCredit,
    /// Its share of the passes since it received its first request.
    pub(super) share: Share,
    /// In order of arrival.
    requests: BTreeMap<u64, QueuedRequest>,
    /// The request of which a pass has taken some sentences.
    started: Option<u64>,
}

#[derive(Debug)]
pub(super) struct QueuedRequest {
    since: Instant,
    has_deadline: bool,
    sentences: Arc<TokenizedSentences>,
    /// The first sentence that no pass has taken.
    next: usize,
    results: ResultSender,
}

/// What a pass may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The most tokens of the first sentence.
    pub(super) first: usize,
    /// The most tokens of a sentence after those that are taken.
    pub(super) tokens: usize,
    /// Tokens that all passes have taken so far.
    pub(super) taken: u64,
    /// For how long a request waits until it is served first, even if the newest come first.
    pub(super) oldest_first_after: Duration,
}

impl Flow for ServiceBacklog {
    fn credit(&mut self) -> &mut FlowCredit {
        &mut self.credit
    }

    fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Flow for ClassQueue {
    fn credit(&mut self) -> &mut FlowCredit {
        &mut self.credit
    }

    fn tokens(&self) -> usize {
        self.tokens
    }
}

impl QueuedRequest {
    pub(super) fn new(has_deadline: bool, sentences: Arc<TokenizedSentences>, results: ResultSender) -> Self {
        Self { since: Instant::now(), has_deadline, sentences, next: 0, results }
    }

    /// Tokens of the sentences that no pass has taken.
    fn tokens_left(&self) -> usize {
        self.sentences.ids(self.next..self.sentences.len()).len()
    }
}

impl Default for UserBacklog {
    fn default() -> Self {
        Self { tokens: 0, credit: FlowCredit::of_quantum(QUANTUM), services: VecDeque::new() }
    }
}

impl UserBacklog {
    /// The requests of each service class.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceBacklog> {
        self.services.iter()
    }

    /// Those of one service class.
    pub(super) fn service(&self, service_class: ServiceClass) -> Option<&ServiceBacklog> {
        self.services().find(|service| service.service_class == service_class)
    }

    /// Appends a request. `taken` is the number of tokens that all passes have taken so far.
    pub(super) fn push(
        &mut self,
        service_class: ServiceClass,
        class: SizeClass,
        id: u64,
        request: QueuedRequest,
        taken: u64,
    ) {
        let index = self.services.iter().position(|service| service.service_class == service_class);
        let index = index.unwrap_or_else(|| {
            self.services.push_back(ServiceBacklog::new(service_class));
            self.services.len() - 1
        });
        self.tokens += request.tokens_left();
        self.services[index].push(class, id, request, taken);
    }

    /// Takes sentences of the request whose turn it is: the first if it fits, and further ones
    /// while the user, the service class and the class have credit and they fit. Returns nothing if
    /// the first does not fit.
    pub(super) fn take(&mut self, room: Room) -> Option<BatchSlice> {
        let slice = next_turn(&mut self.services)?.take(room, self.credit.left())?;
        let taken = slice.tokens();
        self.tokens -= taken;
        self.credit.spend(taken);
        Some(slice)
    }

    /// Removes the rest of a request, and returns its tokens.
    pub(super) fn cancel(&mut self, service_class: ServiceClass, class: SizeClass, id: u64) -> usize {
        let mut services = self.services.iter_mut();
        let service = services.find(|service| service.service_class == service_class);
        let left = service.map_or(0, |service| service.cancel(class, id));
        self.tokens -= left;
        left
    }
}

impl ServiceBacklog {
    fn new(service_class: ServiceClass) -> Self {
        let credit = FlowCredit::of_quantum(service_class.quantum());
        Self { service_class, tokens: 0, credit, classes: VecDeque::new(), gave_up: None }
    }

    /// The requests of one class.
    pub(super) fn class(&self, class: SizeClass) -> Option<&ClassQueue> {
        self.classes.iter().find(|queue| queue.class == class)
    }

    /// Whether callers give up, so that the newest requests are served first.
    pub(super) fn serves_newest_first(&self) -> bool {
        self.gave_up.is_some_and(|when| when.elapsed() < LIFO_FOR)
    }

    fn push(&mut self, class: SizeClass, id: u64, request: QueuedRequest, taken: u64) {
        let index = self.classes.iter().position(|queue| queue.class == class).unwrap_or_else(|| {
            self.classes.push_back(ClassQueue::new(class, self.service_class.quantum()));
            self.classes.len() - 1
        });
        self.tokens += request.tokens_left();
        self.classes[index].push(id, request, taken);
    }

    fn take(&mut self, room: Room, credit: isize) -> Option<BatchSlice> {
        let newest_first_within = self.serves_newest_first().then_some(room.oldest_first_after);
        let credit = credit.min(self.credit.left());
        let queue = next_turn(&mut self.classes)?;
        let slice = queue.take(room, credit.min(queue.credit.left()), newest_first_within)?;
        let taken = slice.tokens();
        queue.credit.spend(taken);
        self.tokens -= taken;
        self.credit.spend(taken);
        Some(slice)
    }

    fn cancel(&mut self, class: SizeClass, id: u64) -> usize {
        let Some(queue) = self.classes.iter_mut().find(|queue| queue.class == class) else { return 0 };
        let Some(request) = queue.requests.remove(&id) else { return 0 };
        let left = request.tokens_left();
        queue.tokens -= left;
        queue.started = queue.started.filter(|&started| started != id);
        // A request whose deadline has passed was expected to finish: its estimate was wrong, which
        // does not concern the others.
        if request.next == 0 && !request.has_deadline && request.since.elapsed() > GIVES_UP_AFTER {
            self.gave_up = Some(Instant::now());
        }
        self.tokens -= left;
        left
    }
}

impl ClassQueue {
    fn new(class: SizeClass, quantum: usize) -> Self {
        let credit = FlowCredit::of_quantum(quantum);
        let share = Share::default();
        Self { class, tokens: 0, credit, share, requests: BTreeMap::new(), started: None }
    }

    fn push(&mut self, id: u64, request: QueuedRequest, taken: u64) {
        if self.tokens == 0 {
            self.share = Share::begin(taken);
        }
        self.tokens += request.tokens_left();
        self.requests.insert(id, request);
    }

    /// Tokens of the requests of patient callers, who have waited for so long.
    pub(super) fn patient_tokens(&self, oldest_first_after: Duration) -> usize {
        let requests = self.requests.values();
        let patient = requests.take_while(|request| request.since.elapsed() >= oldest_first_after);
        patient.map(QueuedRequest::tokens_left).sum()
    }

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
        room: Room,
        credit: isize,
        newest_first_within: Option<Duration>,
    ) -> Option<BatchSlice> {
        let id = self.started.or_else(|| self.next(newest_first_within))?;
        let request = self.requests.get_mut(&id)?;
        let begin = request.next;
        let (mut taken, mut fits) = (0, room.first);
        while request.next < request.sentences.len() && (taken as isize) < credit {
            let length = request.sentences.length(request.next);
            if taken + length > fits {
                break;
            }
            taken += length;
            fits = room.tokens;
            request.next += 1;
        }
        if request.next == begin {
            return None;
        }
        self.tokens -= taken;
        self.share.add(taken, room.taken + taken as u64);
        let range: Range<usize> = begin..request.next;
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
