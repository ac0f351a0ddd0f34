//! Admission control: which requests may enter the queue.
//!
//! A request is admitted whole, and rejected for one of three reasons only:
//!
//! 1. It cannot finish before its caller's deadline, by the measured
//!    [throughput](super::throughput) and the [share](super::share) of its class in it.
//! 2. It has no deadline, and would wait longer than the maximum queueing time, by the same
//!    estimate and with the same margin.
//! 3. The memory for queued requests is used up: a user may have as many tokens in the queue as are
//!    left free for others (the dynamic threshold of Choudhury and Hahne 1998), so that there is
//!    always room for another user. In the same way, the bulk requests of a user may have as many as
//!    the user may still add, so that there is always room for the user's other requests.

use std::time::{Duration, Instant};

use muse_proto::{Error, Reason};

use super::{
    fair_queue::FairQueue,
    flow::{FlowKey, ServiceClass, SizeClass},
    throughput::Throughput,
};
use crate::metrics::RejectionCounters;

/// Items of the streams of a flow are queued for this time at most; further ones are not read yet.
/// It is enough to fill the passes.
const STREAM_AHEAD: Duration = Duration::from_millis(125);
/// The factor on an estimate before it is compared with a deadline or with the maximum queueing
/// time: measured waits are 10 to 20 % longer than their estimates, and a late result is useless.
const MARGIN: f64 = 1.1;
/// The same before a message is decoded. It is larger, so that a small request that passes is
/// admitted once it is tokenized: in an overload the queue is always about as long as the limit, and
/// half of all requests would be tokenized only to be rejected.
const MARGIN_BEFORE_DECODING: f64 = 1.15;
/// The shortest `retry_after` of a rejection.
const SHORTEST_RETRY: Duration = Duration::from_millis(50);

/// The bounds of the queue, and how many requests they rejected.
#[derive(Debug)]
pub(super) struct AdmissionControl {
    capacity: usize,
    max_wait: Duration,
    pub(super) rejections: RejectionCounters,
}

/// A request that is to enter the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) flow: &'a FlowKey,
    pub(super) class: SizeClass,
    pub(super) tokens: usize,
    /// Its caller's.
    pub(super) deadline: Option<Instant>,
    /// Whether `tokens` is exact, and not an estimate by the length of the message.
    pub(super) is_tokenized: bool,
}

/// Why a request is not admitted. Times are estimates, with their margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectionCause {
    /// The model has stopped.
    Stopped,
    /// Too many tokens wait, of this user (for a bulk request, in `bulk` requests) or of all
    /// together; `drained` is the time until the request fits.
    Memory { own: usize, bulk: Option<usize>, total: usize, drained: Option<Duration> },
    /// It would finish after `done`, and its deadline passes after `left`.
    Deadline { done: Duration, left: Duration },
    /// It would wait for this time.
    Wait { wait: Duration },
}

impl AdmissionControl {
    /// Admits at most `capacity` tokens, and requests without a deadline that wait for at most
    /// `max_wait`.
    pub(super) fn new(capacity: usize, max_wait: Duration, rejections: RejectionCounters) -> Self {
        Self { capacity, max_wait, rejections }
    }

    /// Tokens that may wait.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The most tokens that a request can have in a queue of this capacity.
    pub(super) fn largest_request(capacity: usize) -> usize {
        // As the only one it may leave as much free.
        capacity / 2
    }

    /// Whether a request may enter the queue now.
    pub(super) fn check(
        &self,
        queued: &FairQueue,
        throughput: &Throughput,
        request: Candidate<'_>,
    ) -> Result<(), RejectionCause> {
        let Candidate { flow, class, tokens, deadline, is_tokenized } = request;
        let excess = self.excess(queued, flow, tokens);
        if excess > 0 {
            let (own, total) = (queued.tokens_of_user(&flow.user), queued.tokens());
            let is_bulk = flow.service_class == ServiceClass::Bulk;
            let bulk = is_bulk.then(|| queued.tokens_of_flow(flow));
            return Err(RejectionCause::Memory { own, bulk, total, drained: throughput.time_for(excess) });
        }
        let ahead = queued.ahead_of(flow, class, tokens, deadline.is_some());
        let estimates = throughput.time_for(ahead.begin).zip(throughput.time_for(ahead.end));
        let Some((wait, done)) = estimates.filter(|_| ahead.begin > 0) else { return Ok(()) };
        let margin = if is_tokenized { MARGIN } else { MARGIN_BEFORE_DECODING };
        let (wait, done) = (wait.mul_f64(margin), done.mul_f64(margin));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if done > left => Err(RejectionCause::Deadline { done, left }),
            None if wait > self.max_wait => Err(RejectionCause::Wait { wait }),
            _ => Ok(()),
        }
    }

    /// Whether an item of a stream may enter the queue now. Otherwise it waits outside.
    pub(super) fn has_room_for_item(
        &self,
        queued: &FairQueue,
        throughput: &Throughput,
        flow: &FlowKey,
        tokens: usize,
    ) -> bool {
        let own = queued.tokens_of_class(flow, SizeClass::Stream);
        // The first is always admitted, or a user whose calls use up the memory would stop their
        // own streams.
        let most = throughput.tokens_in(STREAM_AHEAD).unwrap_or(usize::MAX);
        own == 0 || (own + tokens <= most && self.excess(queued, flow, tokens) == 0)
    }

    /// Tokens by which a request exceeds what its user, or its flow, may have in the queue.
    fn excess(&self, queued: &FairQueue, flow: &FlowKey, tokens: usize) -> usize {
        let free = self.capacity.saturating_sub(queued.tokens() + tokens);
        let own = queued.tokens_of_user(&flow.user) + tokens;
        let excess = own.saturating_sub(free);
        match (flow.service_class, queued.tokens_of_flow(flow)) {
            // The first one may be larger, or the largest requests would never be admitted.
            (ServiceClass::Interactive, _) | (ServiceClass::Bulk, 0) => excess,
            (ServiceClass::Bulk, bulk) => {
                excess.max((bulk + tokens).saturating_sub(free.saturating_sub(own)))
            }
        }
    }

    /// Counts a rejection, and returns its error.
    pub(super) fn reject(&self, cause: RejectionCause) -> Error {
        let RejectionCounters { memory, wait: too_long, deadline, stopped } = &self.rejections;
        let (counter, text, retry_after) = match cause {
            RejectionCause::Stopped => {
                stopped.inc();
                return model_stopped();
            }
            RejectionCause::Memory { own, bulk, total, drained } => {
                let bulk = bulk.map(|bulk| format!(" ({bulk} of bulk keys)")).unwrap_or_default();
                let text = format!(
                    "the queue is full: {own} tokens of yours{bulk} and {total} of all users wait, of {} in all; try \
                     again later",
                    self.capacity
                );
                (memory, text, drained)
            }
            RejectionCause::Deadline { done, left } => {
                let text = format!(
                    "the request cannot finish before its deadline: that takes about {:.1} s, and {:.1} s are left",
                    done.as_secs_f64(),
                    left.as_secs_f64()
                );
                (deadline, text, Some(done.saturating_sub(left)))
            }
            RejectionCause::Wait { wait } => {
                let text = format!(
                    "the request would wait for about {:.1} s, longer than the maximum queueing time of {} s",
                    wait.as_secs_f64(),
                    self.max_wait.as_secs()
                );
                (too_long, text, Some(wait.saturating_sub(self.max_wait)))
            }
        };
        counter.inc();
        // The measurements may change, and a client that tries again at once gains nothing.
        let retry_after = retry_after.unwrap_or_default().max(SHORTEST_RETRY);
        Error::new(Reason::Overloaded, text).with_retry_after(retry_after)
    }
}

/// The error of a request that the model will not process.
pub(super) fn model_stopped() -> Error {
    Error::new(Reason::Unavailable, "the model has stopped").with_retry_after(Duration::from_secs(1))
}
