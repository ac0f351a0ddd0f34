//! The threads that hash.
//!
//! A hash costs some 20 ms of a core and 19 MiB, on purpose. So there is a fixed number of threads, each with one
//! hash's memory, before them queues of bounded length, and who finds a queue full is turned away: neither memory nor
//! waiting time grows with the crowd. There is a queue for known users, which goes first, and one for all others, so
//! that strangers in any number turn away no known user ([`Priority`]). They are threads of their own, so that nothing
//! else waits behind them. The memory is kept from hash to hash, until none was asked for in a while.

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use muse_proto::{Error, Reason};
use muse_telemetry::metrics::Metrics;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use super::{Cost, argon2id, hash_arena::Memory, password_hash::Stored};
use crate::error::internal;

/// How many wait for each thread in each of the queues. At 20 ms each, the last one waits a little more than a second.
const WAITING_PER_THREAD: usize = 64;
/// Known users who go first until one of the others gets a turn.
const KNOWN_IN_A_ROW: usize = 3;
/// In which the threads hash nearly all that was waiting.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long memory is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// Who waits for a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A user who has logged in from this address before, or who is logged in.
    Known,
    /// Anybody else.
    Unknown,
}

struct Job {
    work: Box<dyn FnOnce(&mut Memory) + Send>,
    /// Whether its caller has gone.
    is_abandoned: Box<dyn Fn() -> bool + Send>,
}

/// How many threads hash unless told otherwise: half of the cores, since logging in is not all that a machine does.
pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

/// What became of a password that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the user's.
    Right {
        /// A hash that is made now would be another one, so make it: nobody else has the password at hand.
        outdated: bool,
    },
    /// It is not, or there is no such user.
    Wrong,
}

/// A handle on the threads that hash passwords. They end with the last one.
#[derive(Debug, Clone)]
pub(crate) struct PasswordHashPool {
    jobs: Arc<Jobs>,
    capacity: usize,
    cost: Cost,
    _open: Arc<Open>,
}

/// Ends the threads when it is dropped.
#[derive(Debug)]
struct Open(Arc<Jobs>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.queues().closed = true;
        self.0.changed.notify_all();
    }
}

impl PasswordHashPool {
    /// Starts the threads. Each takes `cost`'s memory to hash.
    pub(crate) fn new(threads: usize, cost: Cost) -> io::Result<Self> {
        let capacity = threads * WAITING_PER_THREAD;
        let jobs = Arc::new(Jobs::default());
        let open = Arc::new(Open(Arc::clone(&jobs)));
        for number in 0..threads {
            let jobs = jobs.clone();
            let name = thread::Builder::new().name(format!("hasher-{number}"));
            name.spawn(move || jobs.work(Memory::new(cost.memory_kib() as usize), KEPT_FOR))?;
        }
        Ok(Self { jobs, capacity, cost, _open: open })
    }

    /// Tells in the service's metrics how many wait.
    pub(crate) fn register_metrics(&self, metrics: &Metrics) {
        let (jobs, capacity) = (Arc::clone(&self.jobs), 2.0 * self.capacity as f64);
        metrics.pulled_gauge(
            "muse_password_hash_queue_length",
            "Passwords that wait to be hashed.",
            move || {
                let queues = jobs.queues();
                (queues.known.len() + queues.unknown.len()) as f64
            },
        );
        metrics.pulled_gauge(
            "muse_password_hash_queue_capacity",
            "Passwords that may wait to be hashed, half of them of known users; further ones are refused.",
            move || capacity,
        );
    }

    /// Hashes a new password.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String, Error> {
        let cost = self.cost;
        let work =
            move |memory: &mut Memory| argon2id::hash(password.expose_secret().as_bytes(), cost, memory);
        self.run(Priority::Known, work).await
    }

    /// Compares a password with the stored hash of it. Without one, there being no such user, it is wrong, and that
    /// takes as long to say.
    pub(crate) async fn check(
        &self,
        password: SecretString,
        stored: Option<String>,
        priority: Priority,
    ) -> Result<Verdict, Error> {
        let cost = self.cost;
        self.run(priority, move |memory| {
            let password = password.expose_secret().as_bytes();
            let stored = stored.map(|text| Stored::parse(&text)).transpose()?;
            if let Some(stored) = &stored
                && stored.is_of(password, memory)?
            {
                return Ok(Verdict::Right { outdated: stored.is_outdated(cost) });
            }
            Stored::waste_the_rest(stored.as_ref(), password, cost, memory)?;
            Ok(Verdict::Wrong)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        work: impl FnOnce(&mut Memory) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let waiting = Arc::clone(&answer);
        let is_abandoned = move || lock(&waiting).as_ref().is_none_or(oneshot::Sender::is_closed);
        let work = move |memory: &mut Memory| {
            let answer = lock(&answer).take();
            // Else its caller has gone, and others wait.
            if let Some(answer) = answer.filter(|answer| !answer.is_closed()) {
                let _ = answer.send(work(memory));
            }
        };
        let job = Job { work: Box::new(work), is_abandoned: Box::new(is_abandoned) };
        if !self.jobs.push(job, priority, self.capacity) {
            return Err(
                Error::new(Reason::Overloaded, "Too many logins at once").with_retry_after(RETRY_AFTER)
            );
        }
        answered.await.map_err(|_| internal("hashing a password panicked"))?.map_err(internal)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads share.
#[derive(Default)]
struct Jobs {
    queues: Mutex<Queues>,
    /// There is a job, or will be none any more.
    changed: Condvar,
    /// The memory of threads that wait.
    spare: Mutex<Vec<Memory>>,
}

#[derive(Default)]
struct Queues {
    known: VecDeque<Job>,
    unknown: VecDeque<Job>,
    /// Known users who went first since one of the others had a turn.
    in_a_row: usize,
    closed: bool,
}

impl Queues {
    fn next(&mut self) -> Option<Job> {
        if self.in_a_row < KNOWN_IN_A_ROW
            && let Some(job) = self.known.pop_front()
        {
            self.in_a_row += 1;
            return Some(job);
        }
        self.in_a_row = 0;
        self.unknown.pop_front().or_else(|| self.known.pop_front())
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

impl Jobs {
    /// Adds a job to its queue, unless that holds `capacity` jobs whose callers wait.
    fn push(&self, job: Job, priority: Priority, capacity: usize) -> bool {
        let mut queues = self.queues();
        let queue = match priority {
            Priority::Known => &mut queues.known,
            Priority::Unknown => &mut queues.unknown,
        };
        if queue.len() >= capacity {
            queue.retain(|job| !(job.is_abandoned)());
        }
        let fits = queue.len() < capacity;
        if fits {
            queue.push_back(job);
        }
        drop(queues);
        self.changed.notify_one();
        fits
    }

    /// Does one job after the other, until there is no handle left that could bring one.
    fn work(&self, mut memory: Memory, kept_for: Duration) {
        while let Some(job) = self.next(&mut memory, kept_for) {
            // Whoever waits for this job is told by its end of the channel, and the others still need the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| (job.work)(&mut memory)));
        }
    }

    /// Waits for the next job, and puts the memory down meanwhile.
    fn next(&self, memory: &mut Memory, kept_for: Duration) -> Option<Job> {
        self.spare().push(memory.take());
        let mut queues = self.queues();
        loop {
            if let Some(job) = queues.next() {
                if let Some(spare) = self.spare().pop() {
                    *memory = spare;
                }
                return Some(job);
            }
            if queues.closed {
                return None;
            }
            let waited = self.changed.wait_timeout(queues, kept_for);
            let (woken, result) = waited.unwrap_or_else(PoisonError::into_inner);
            queues = woken;
            if result.timed_out() {
                self.spare().clear();
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        lock(&self.queues)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Memory>> {
        lock(&self.spare)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        sync::mpsc::{self, RecvTimeoutError},
    };

    use futures::{FutureExt, future::join_all};
    use tokio::sync::oneshot::Sender;

    use super::*;

    const PBKDF2: &str =
        "$pbkdf2-sha256$29000$gJDyHmPM2Tvn3JsTojQG4A$vkEjLpCIvOB7gNUm7pg4b7URm3vddGOYq612N.QN3bY";

    fn hash_pool(threads: usize) -> PasswordHashPool {
        PasswordHashPool::new(threads, Cost::default()).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    /// Keeps a thread busy until the returned sender is dropped.
    async fn occupy(hash_pool: &PasswordHashPool) -> Sender<()> {
        let (release, released) = oneshot::channel::<()>();
        let (start, started) = oneshot::channel();
        let hash_pool = hash_pool.clone();
        let job = async move {
            hash_pool
                .run(Priority::Unknown, move |_| Ok((start.send(()), released.blocking_recv().is_ok())))
                .await
                .map(drop)
        };
        tokio::spawn(job);
        started.await.unwrap();
        release
    }

    #[tokio::test]
    async fn a_password_is_right_or_wrong() {
        let hash_pool = hash_pool(1);
        let hash = hash_pool.hash(secret("pass\0word")).await.unwrap();
        let check = async |password: &str, stored: Option<&str>| {
            hash_pool.check(secret(password), stored.map(str::to_owned), Priority::Unknown).await.unwrap()
        };
        assert_eq!(check("pass\0word", Some(&hash)).await, Verdict::Right { outdated: false });
        assert_eq!(check("pass", Some(&hash)).await, Verdict::Wrong);
        assert_eq!(check("admin", Some(PBKDF2)).await, Verdict::Right { outdated: true });
        assert_eq!(check("Admin", Some(PBKDF2)).await, Verdict::Wrong);
        assert_eq!(check("pass\0word", None).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_outdated() {
        let hash = hash_pool(1).hash(secret("password")).await.unwrap();
        let dearer = PasswordHashPool::new(1, Cost::new(20 * 1024, 2).unwrap()).unwrap();
        let verdict = dearer.check(secret("password"), Some(hash), Priority::Unknown).await;
        assert_eq!(verdict, Ok(Verdict::Right { outdated: true }));
        let anew = dearer.hash(secret("password")).await.unwrap();
        assert!(anew.starts_with("$argon2id$v=19$m=20480,t=2,p=1$"), "{anew}");
        let verdict = dearer.check(secret("password"), Some(anew.clone()), Priority::Unknown).await;
        assert_eq!(verdict, Ok(Verdict::Right { outdated: false }));
        // It takes more memory than these threads have.
        let verdict = hash_pool(1).check(secret("password"), Some(anew), Priority::Unknown).await;
        assert_eq!(verdict, Ok(Verdict::Right { outdated: true }));
    }

    #[tokio::test]
    async fn a_damaged_hash_is_a_fault_of_ours() {
        for damaged in ["", "$argon2id$", "$pbkdf2-sha256$", "admin", &PBKDF2.replace("29000", "2900000000")]
        {
            let refused = hash_pool(1)
                .check(secret("admin"), Some(damaged.to_owned()), Priority::Unknown)
                .await
                .unwrap_err();
            assert_eq!(refused, Error::new(Reason::Internal, "internal error"));
        }
    }

    #[tokio::test]
    async fn a_crowd_is_turned_away() {
        let hash_pool = hash_pool(1);
        let busy = occupy(&hash_pool).await;
        let mut waiting: Vec<_> =
            (0..WAITING_PER_THREAD).map(|_| Box::pin(hash_pool.run(Priority::Unknown, |_| Ok(())))).collect();
        assert!(waiting.iter_mut().all(|check| check.now_or_never().is_none()));
        let refused = hash_pool.check(secret("x"), None, Priority::Unknown).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::Overloaded);
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));
        drop(busy);
        assert!(join_all(waiting).await.iter().all(Result::is_ok));
        assert_eq!(
            hash_pool.check(secret("x"), None, Priority::Unknown).await,
            Ok(Verdict::Wrong),
            "and let in later"
        );
    }

    #[tokio::test]
    async fn crowd_of_strangers_turns_away_no_known_user() {
        let hash_pool = hash_pool(1);
        let busy = occupy(&hash_pool).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let hash = |priority, name| {
            let order = Arc::clone(&order);
            Box::pin(hash_pool.run(priority, move |_| {
                lock(&order).push(name);
                Ok(())
            }))
        };
        let mut waiting: Vec<_> =
            (0..WAITING_PER_THREAD).map(|_| hash(Priority::Unknown, "stranger")).collect();
        waiting.extend((0..KNOWN_IN_A_ROW + 1).map(|_| hash(Priority::Known, "known")));
        assert!(waiting.iter_mut().all(|check| check.now_or_never().is_none()));
        assert!(hash(Priority::Unknown, "stranger").await.is_err());
        drop(busy);
        assert!(join_all(waiting).await.iter().all(Result::is_ok));
        // The known users go first, and do not keep the others waiting for ever.
        let order = lock(&order);
        assert_eq!(order.iter().position(|name| *name == "stranger"), Some(KNOWN_IN_A_ROW));
        assert_eq!(order[KNOWN_IN_A_ROW + 1], "known");
    }

    #[tokio::test]
    async fn abandoned_checks_make_room() {
        let hash_pool = hash_pool(1);
        let busy = occupy(&hash_pool).await;
        let mut gone: Vec<_> =
            (0..WAITING_PER_THREAD).map(|_| Box::pin(hash_pool.run(Priority::Unknown, |_| Ok(())))).collect();
        assert!(gone.iter_mut().all(|check| check.now_or_never().is_none()));
        drop(gone);
        let mut next = Box::pin(hash_pool.check(secret("x"), None, Priority::Unknown));
        assert!((&mut next).now_or_never().is_none());
        drop(busy);
        assert_eq!(next.await, Ok(Verdict::Wrong));
    }

    #[tokio::test]
    async fn nobody_hashes_for_who_has_gone() {
        let hash_pool = hash_pool(1);
        let busy = occupy(&hash_pool).await;
        let (hashed, told) = mpsc::channel();
        let mut gone = Box::pin(
            hash_pool.run(Priority::Unknown, move |_| hashed.send(()).map_err(|failure| failure.to_string())),
        );
        assert!((&mut gone).now_or_never().is_none());
        drop((gone, busy));
        assert!(told.recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_is_survived() {
        let hash_pool = hash_pool(1);
        for _ in 0..3 {
            let failed = hash_pool.run::<()>(Priority::Unknown, |_| panic!("on purpose")).await.unwrap_err();
            assert_eq!(failed.reason(), Reason::Internal);
        }
        assert_eq!(hash_pool.check(secret("x"), None, Priority::Unknown).await, Ok(Verdict::Wrong));
    }

    #[test]
    fn memory_is_kept_for_a_while() {
        let jobs = Arc::new(Jobs::default());
        let open = Open(Arc::clone(&jobs));
        let kept_for = Duration::from_millis(300);
        let threads = [(); 2].map(|()| {
            let jobs = Arc::clone(&jobs);
            thread::spawn(move || jobs.work(Memory::new(64), kept_for))
        });
        let (told, kept) = mpsc::channel();
        let hash = || {
            let told = told.clone();
            let job = move |memory: &mut Memory| {
                let kept = memory.blocks();
                let _ = memory.lend(64, |_| ());
                let _ = told.send(kept);
            };
            let job = Job { work: Box::new(job), is_abandoned: Box::new(|| false) };
            assert!(jobs.push(job, Priority::Unknown, 4));
            kept.recv().unwrap()
        };
        assert_eq!(hash(), 0);
        // Whichever thread has the next one.
        while hash() == 0 {}
        // A thread may put its memory down just after the others' was dropped.
        let is_dropped = |_| {
            thread::sleep(2 * kept_for);
            hash() == 0
        };
        assert!((0..20).any(is_dropped));
        drop(open);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_handle() {
        thread_local!(static AT_EXIT: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) });
        let hash_pool = hash_pool(1);
        let (alive, end) = mpsc::channel();
        hash_pool.run(Priority::Unknown, move |_| Ok(AT_EXIT.replace(Some(alive)).is_none())).await.unwrap();
        let other = hash_pool.clone();
        drop(hash_pool);
        assert_eq!(end.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
        drop(other);
        assert_eq!(end.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    }
}
