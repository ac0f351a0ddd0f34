//! The thread pool that hashes passwords.
//!
//! A hash takes about 20 ms of a core and 19 MiB, on purpose. So a fixed number of threads hash,
//! each with one arena, behind two bounded queues, and a login that finds its queue full is
//! rejected: neither memory nor waiting time grows with the number of logins. One queue is for
//! known users and has priority, the other for all others, so that no number of strangers prevents
//! a known user from logging in ([`Priority`]). The threads are not those of the async runtime, so
//! that hashing delays no other call.

mod job_queue;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, thread, time::Duration};

use muse_proto::{Error, Reason};
use muse_telemetry::metrics::Metrics;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use super::{
    Cost, argon2id,
    hash_arena::HashArena,
    normal_form::{nfc, normal_forms},
    password_hash::StoredHash,
};
use crate::error::internal;

use job_queue::{Job, JobQueue};

/// Jobs that may wait for each thread in each of the queues. At 20 ms each, the last one waits a
/// little more than a second. The check of a password that is not ASCII takes up to three hashes.
const QUEUED_PER_THREAD: usize = 64;
/// The time in which the threads execute nearly all jobs of a full queue.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long an arena that no thread uses is retained.
const ARENA_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The queue of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A user who has logged in from this address before, or who is logged in.
    Known,
    /// Anybody else.
    Unknown,
}

/// The default number of threads: half of the cores, at most 4.
pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

/// The outcome of the check of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PasswordCheck {
    /// The password is the user's.
    Match {
        /// Whether the stored hash should be replaced, because its algorithm or cost is not the
        /// configured one, or it is not of the password's NFC.
        outdated: bool,
    },
    /// The password is another one, or there is no such user.
    Mismatch,
}

/// A pool of threads that hash passwords. Clones share it; the threads end with the last one.
#[derive(Debug, Clone)]
pub(crate) struct PasswordHashPool {
    jobs: Arc<JobQueue>,
    /// Of each queue.
    capacity: usize,
    cost: Cost,
    _shutdown: Arc<CloseOnDrop>,
}

/// Closes the queue when it is dropped.
#[derive(Debug)]
struct CloseOnDrop(Arc<JobQueue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl PasswordHashPool {
    /// Starts the threads. Each uses the memory of `cost` to hash.
    pub(crate) fn new(threads: usize, cost: Cost) -> io::Result<Self> {
        let capacity = threads * QUEUED_PER_THREAD;
        let jobs = Arc::new(JobQueue::default());
        let shutdown = Arc::new(CloseOnDrop(Arc::clone(&jobs)));
        for number in 0..threads {
            let jobs = jobs.clone();
            let thread = thread::Builder::new().name(format!("hasher-{number}"));
            thread.spawn(move || jobs.run(HashArena::new(cost.memory_kib() as usize), ARENA_IDLE_TIMEOUT))?;
        }
        Ok(Self { jobs, capacity, cost, _shutdown: shutdown })
    }

    /// Registers the metrics of the queues.
    pub(crate) fn register_metrics(&self, metrics: &Metrics) {
        let (jobs, capacity) = (Arc::clone(&self.jobs), 2.0 * self.capacity as f64);
        metrics.pulled_gauge(
            "muse_password_hash_queue_length",
            "Passwords that wait to be hashed.",
            move || jobs.len() as f64,
        );
        metrics.pulled_gauge(
            "muse_password_hash_queue_capacity",
            "Passwords that may wait to be hashed, half of them of known users; further logins are rejected.",
            move || capacity,
        );
    }

    /// Hashes the NFC of a new password.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String, Error> {
        let (cost, password) = (self.cost, nfc(&password));
        let work =
            move |arena: &mut HashArena| argon2id::hash(password.expose_secret().as_bytes(), cost, arena);
        self.run(Priority::Known, work).await
    }

    /// Compares the normal forms of a password with the stored hash. Without a hash, for an unknown
    /// user, it takes as long. The hash of another form than NFC is outdated.
    pub(crate) async fn check(
        &self,
        password: SecretString,
        stored: Option<String>,
        priority: Priority,
    ) -> Result<PasswordCheck, Error> {
        let cost = self.cost;
        self.run(priority, move |arena| {
            let stored = stored.map(|text| StoredHash::parse(&text)).transpose()?;
            for (index, form) in normal_forms(&password).iter().enumerate() {
                let form = form.expose_secret().as_bytes();
                if let Some(stored) = &stored
                    && stored.matches(form, arena)?
                {
                    return Ok(PasswordCheck::Match { outdated: index > 0 || stored.is_outdated(cost) });
                }
                StoredHash::equalize_time(stored.as_ref(), form, cost, arena)?;
            }
            Ok(PasswordCheck::Mismatch)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce(&mut HashArena) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, result) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let waiting = Arc::clone(&sender);
        let is_cancelled = move || waiting.lock().as_ref().is_none_or(oneshot::Sender::is_closed);
        let work = move |arena: &mut HashArena| {
            let sender = sender.lock().take();
            // A cancelled job is skipped.
            if let Some(sender) = sender.filter(|sender| !sender.is_closed()) {
                let _ = sender.send(work(arena));
            }
        };
        let job = Job { work: Box::new(work), is_cancelled: Box::new(is_cancelled) };
        if !self.jobs.push(job, priority, self.capacity) {
            return Err(
                Error::new(Reason::Overloaded, "Too many logins at once").with_retry_after(RETRY_AFTER)
            );
        }
        result.await.map_err(|_| internal("hashing a password panicked"))?.map_err(internal)
    }
}
