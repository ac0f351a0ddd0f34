//! The queues of the hash pool, and the loop of its threads.

use std::{
    collections::VecDeque,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::Priority;
use crate::passwords::hash_arena::HashArena;

/// Consecutive jobs of known users, after which one of the others is served.
pub(super) const MAX_CONSECUTIVE_KNOWN: usize = 3;

/// Work for a thread of the pool.
pub(super) struct Job {
    pub(super) work: Box<dyn FnOnce(&mut HashArena) + Send>,
    /// Whether the caller no longer waits.
    pub(super) is_cancelled: Box<dyn Fn() -> bool + Send>,
}

/// What the threads share.
#[derive(Default)]
pub(super) struct JobQueue {
    queues: Mutex<PriorityQueues>,
    /// Notified when a job was added or the queue was closed.
    changed: Condvar,
    /// The arenas of idle threads.
    idle_arenas: Mutex<Vec<HashArena>>,
}

#[derive(Default)]
struct PriorityQueues {
    known: VecDeque<Job>,
    unknown: VecDeque<Job>,
    /// Jobs of known users since the last one of the others.
    consecutive_known: usize,
    is_closed: bool,
}

impl PriorityQueues {
    fn next(&mut self) -> Option<Job> {
        if self.consecutive_known < MAX_CONSECUTIVE_KNOWN
            && let Some(job) = self.known.pop_front()
        {
            self.consecutive_known += 1;
            return Some(job);
        }
        self.consecutive_known = 0;
        self.unknown.pop_front().or_else(|| self.known.pop_front())
    }
}

impl fmt::Debug for JobQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobQueue").finish_non_exhaustive()
    }
}

impl JobQueue {
    /// Adds a job, unless `capacity` jobs of its priority wait, cancelled ones excluded.
    pub(super) fn push(&self, job: Job, priority: Priority, capacity: usize) -> bool {
        let mut queues = self.queues.lock();
        let queue = match priority {
            Priority::Known => &mut queues.known,
            Priority::Unknown => &mut queues.unknown,
        };
        if queue.len() >= capacity {
            queue.retain(|job| !(job.is_cancelled)());
        }
        let fits = queue.len() < capacity;
        if fits {
            queue.push_back(job);
        }
        drop(queues);
        self.changed.notify_one();
        fits
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        let queues = self.queues.lock();
        queues.known.len() + queues.unknown.len()
    }

    /// Ends the threads as soon as they have done the waiting jobs.
    pub(super) fn close(&self) {
        self.queues.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Executes jobs until the queue is closed and empty. Arenas that were idle for `idle_timeout`
    /// are freed.
    pub(super) fn run(&self, mut arena: HashArena, idle_timeout: Duration) {
        while let Some(job) = self.next(&mut arena, idle_timeout) {
            // The caller gets an error because its channel is dropped; the thread serves the
            // others.
            let _ = catch_unwind(AssertUnwindSafe(|| (job.work)(&mut arena)));
        }
    }

    /// Waits for the next job. In the meantime the arena is available to other threads.
    fn next(&self, arena: &mut HashArena, idle_timeout: Duration) -> Option<Job> {
        let without_memory = arena.empty();
        self.idle_arenas.lock().push(mem::replace(arena, without_memory));
        let mut queues = self.queues.lock();
        loop {
            if let Some(job) = queues.next() {
                if let Some(idle) = self.idle_arenas.lock().pop() {
                    *arena = idle;
                }
                return Some(job);
            }
            if queues.is_closed {
                return None;
            }
            if self.changed.wait_for(&mut queues, idle_timeout).timed_out() {
                self.idle_arenas.lock().clear();
            }
        }
    }
}
