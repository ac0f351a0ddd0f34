//! Login throttling: exponential back-off per subject, with slow decay.
//!
//! A failed login counts for its subjects. After [`BackoffPolicy::free`] failures a subject waits before
//! the next attempt, twice as long after each further failure, up to [`BackoffPolicy::longest`]. One
//! failure is forgiven for each [`FORGIVEN_AFTER`] without another one. That is longer than any
//! wait, so attempts as soon as they are allowed never shorten the wait.
//!
//! A login has one of two sets of subjects:
//!
//! - A user who logged in from this address before is *known* here. The pair of name and address is
//!   then the only subject: neither failures of other names at the address nor failures of the name
//!   elsewhere delay this user.
//! - Otherwise the subjects are the address, the name and their pair. The pair waits twice as long
//!   as the address, so after each wait of the address other names get their turn before the one
//!   that fails repeatedly. The name's wait is short, or strangers could lock its user out
//!   everywhere.
//!
//! A refused attempt is not checked and does not count. The counts are in the database, so a
//! restart forgives nothing and processes that share a database count together. They are in memory,
//! too: a database that cannot be written (a full disk) does not turn the throttling off.

use std::{
    collections::HashMap,
    fmt, mem,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muse_proto::{Error, Reason};
use muse_telemetry::log_throttle::LogThrottle;
use sea_orm::DbErr;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::{
    clock,
    error::{database_failed, one_line},
    store::{Failures, Store},
};

/// LoginMetrics of one subject that are checked at a time. Once a subject has to wait between attempts it
/// is one.
const AT_ONCE: usize = 32;
/// For each so many seconds without a failure one failure is forgiven. Longer than the longest
/// wait.
const FORGIVEN_AFTER: i64 = 3600;
/// After so many seconds without a failure all are forgiven.
const FORGOTTEN_AFTER: i64 = 24 * 3600;
/// So many seconds after the last login from an address the user is no longer known there.
const KNOWN_FOR: i64 = 90 * 24 * 3600;
/// The time of a login from a known address is written again after so many seconds.
const NOTED_FOR: i64 = 24 * 3600;
/// Subjects in the database, and in each of two generations in memory. Beyond that the oldest are
/// forgotten first.
const MOST_STORED: u64 = 1_000_000;
const MOST_IN_MEMORY: usize = 32_768;

/// How long a subject waits after its failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BackoffPolicy {
    /// Failures without a wait: people mistype.
    free: i64,
    /// Seconds after the first failure beyond those. Each further failure doubles them.
    first: i64,
    /// The longest wait, in seconds.
    longest: i64,
}

const OF_ADDRESS: BackoffPolicy = BackoffPolicy { free: 20, first: 1, longest: 15 * 60 };
const OF_NAME: BackoffPolicy = BackoffPolicy { free: 20, first: 1, longest: 60 };
const OF_KNOWN_PAIR: BackoffPolicy = OF_ADDRESS;
const OF_UNKNOWN_PAIR: BackoffPolicy = BackoffPolicy { first: 2, longest: 30 * 60, ..OF_ADDRESS };

impl BackoffPolicy {
    /// Seconds from the last of so many failures until the next attempt.
    fn wait(self, failures: i64) -> i64 {
        match failures - self.free {
            ..0 => 0,
            further @ 0..32 => self.longest.min(self.first << further),
            _ => self.longest,
        }
    }

    /// Failures beyond which the wait does not grow. No more are counted, or forgiving them would
    /// take for ever.
    fn most(self) -> i64 {
        (self.free..).find(|failures| self.wait(*failures) == self.longest).unwrap_or(self.free)
    }
}

impl Failures {
    /// Those that are not forgiven.
    fn remaining(self, now: i64) -> i64 {
        let quiet = now.saturating_sub(self.last_at).max(0);
        if quiet >= FORGOTTEN_AFTER { 0 } else { (self.count - quiet / FORGIVEN_AFTER).max(0) }
    }

    /// The stricter of two counts.
    fn or_stricter(self, other: Self, now: i64) -> Self {
        let rank = |failures: Self| (failures.remaining(now), failures.last_at);
        if rank(other) > rank(self) { other } else { self }
    }
}

/// The time, in seconds since 1970.
#[derive(Clone)]
struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.0()).finish()
    }
}

/// Counts failed logins and delays further attempts. A clone shares the counts.
#[derive(Debug, Clone)]
pub(crate) struct LoginThrottle {
    store: Store,
    memory: Arc<Mutex<Memory>>,
    clock: Clock,
    log_throttle: LogThrottle,
}

/// What this process knows without its database.
#[derive(Debug, Default)]
struct Memory {
    /// LoginMetrics that are being checked, by subject: many at once are many guesses.
    in_flight: HashMap<String, usize>,
    /// Failures by subject, in two generations. When the younger is full it becomes the older, and
    /// the older is forgotten.
    young: HashMap<String, Failures>,
    old: HashMap<String, Failures>,
}

impl Memory {
    fn failures(&self, subject: &str) -> Option<Failures> {
        self.young.get(subject).or_else(|| self.old.get(subject)).copied()
    }

    fn set_failures(&mut self, subject: &str, failures: Failures) {
        if self.young.len() >= MOST_IN_MEMORY && !self.young.contains_key(subject) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(subject.to_owned(), failures);
    }

    fn forget(&mut self, subject: &str) {
        self.young.remove(subject);
        self.old.remove(subject);
    }

    /// The failures of a subject, of which the database has `stored`.
    fn merge(&mut self, subject: &str, stored: Failures, now: i64) -> Failures {
        let failures = match self.failures(subject) {
            // The clock was set back since: by the time in the database a wait would take until the
            // clock is there again.
            Some(known) if stored.last_at > now => Failures { count: known.count.max(stored.count), ..known },
            Some(known) => known.or_stricter(stored, now),
            None => stored,
        };
        if failures.last_at <= now {
            return failures;
        }
        let clamped = Failures { last_at: now, ..failures };
        self.set_failures(subject, clamped);
        clamped
    }
}

/// A login that may be checked. [`LoginAttempt::failed`] or [`LoginAttempt::succeeded`] records the outcome.
#[derive(Debug)]
pub(crate) struct LoginAttempt {
    throttle: LoginThrottle,
    /// Those among which the attempt is in flight, which are all once [`LoginThrottle::begin`] has
    /// returned it.
    subjects: Vec<ThrottleSubject>,
    pair: String,
    /// When the user logged in from this address; 0 if never.
    last_login: i64,
}

#[derive(Debug)]
struct ThrottleSubject {
    key: String,
    backoff: BackoffPolicy,
}

impl LoginThrottle {
    pub(crate) fn new(store: Store) -> Self {
        Self::with_clock(store, clock::now)
    }

    fn with_clock(store: Store, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self {
            store,
            memory: Arc::default(),
            clock: Clock(Arc::new(clock)),
            log_throttle: LogThrottle::default(),
        }
    }

    /// Allows a login to be checked.
    ///
    /// # Errors
    ///
    /// [`Reason::TooManyAttempts`] or [`Reason::Overloaded`], with the time after which to try
    /// again.
    pub(crate) async fn begin(&self, username: &str, address: IpAddr) -> Result<LoginAttempt, Error> {
        let now = (self.clock.0)();
        let address = network(address).to_string();
        let pair = digest(&["pair", username, &address]);
        let last_login = self.store.last_login(&pair).await.map_err(database_failed)?;
        let subjects = if last_login > now.saturating_sub(KNOWN_FOR) {
            vec![ThrottleSubject { key: pair.clone(), backoff: OF_KNOWN_PAIR }]
        } else {
            vec![
                ThrottleSubject { key: pair.clone(), backoff: OF_UNKNOWN_PAIR },
                ThrottleSubject { key: digest(&["address", &address]), backoff: OF_ADDRESS },
                ThrottleSubject { key: digest(&["name", username]), backoff: OF_NAME },
            ]
        };
        let stored = self.store.login_failures(&keys(&subjects)).await.map_err(database_failed)?;

        let mut attempt = LoginAttempt { throttle: self.clone(), subjects: Vec::new(), pair, last_login };
        let mut memory = self.memory();
        for (subject, stored) in subjects.into_iter().zip(stored) {
            let failures = memory.merge(&subject.key, stored, now);
            let in_flight = memory.in_flight.entry(subject.key.clone()).or_default();
            *in_flight += 1;
            let others = *in_flight - 1;
            let backoff = subject.backoff;
            attempt.subjects.push(subject);
            if let Err(refused) = check(failures, backoff, others, now) {
                // Dropping the attempt takes it out of those in flight, for which it needs the
                // lock.
                drop(memory);
                return Err(refused);
            }
        }
        drop(memory);
        Ok(attempt)
    }

    /// Deletes from the database what no longer matters.
    pub(crate) async fn prune(&self) -> Result<u64, DbErr> {
        let now = (self.clock.0)();
        self.store.prune_logins(now - FORGOTTEN_AFTER, now - KNOWN_FOR, MOST_STORED).await
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs that the database was not written. The answer does not depend on it.
    fn log_not_written(&self, what: &str, failure: DbErr) {
        if self.log_throttle.allows(what) {
            warn!(cause = one_line(&failure), "cannot write {what} to the database");
        }
    }
}

impl LoginAttempt {
    /// Whether the user has logged in from this address before.
    pub(crate) fn is_of_known_user(&self) -> bool {
        // Others have three.
        self.subjects.len() == 1
    }

    /// Counts a wrong name or password.
    pub(crate) async fn failed(self) {
        let throttle = &self.throttle;
        let now = (throttle.clock.0)();
        // Read anew: another process may have counted failures meanwhile.
        let stored = throttle.store.login_failures(&keys(&self.subjects)).await;
        let stored = stored.unwrap_or_else(|_| vec![Failures::default(); self.subjects.len()]);
        let mut changed = Vec::new();
        {
            let mut memory = throttle.memory();
            for (subject, stored) in self.subjects.iter().zip(stored) {
                let count = memory.merge(&subject.key, stored, now).remaining(now) + 1;
                let failures = Failures { count: count.min(subject.backoff.most()), last_at: now };
                memory.set_failures(&subject.key, failures);
                changed.push((subject.key.as_str(), failures));
            }
        }
        if let Err(failure) = throttle.store.set_login_failures(&changed).await {
            throttle.log_not_written("failed logins (they are counted in memory)", failure);
        }
    }

    /// The user is known at this address from now on, and the pair's failures are forgiven. Those
    /// of the address and of the name are not: a guesser may have a password of their own.
    pub(crate) async fn succeeded(self) {
        let throttle = &self.throttle;
        let now = (throttle.clock.0)();
        throttle.memory().forget(&self.pair);
        let recorded = async {
            if self.last_login <= now.saturating_sub(NOTED_FOR) {
                throttle.store.note_login(&self.pair, now).await?;
            }
            let failures = throttle.store.login_failures(&[&self.pair]).await?;
            if failures.iter().any(|failures| failures.count > 0) {
                throttle.store.set_login_failures(&[(&self.pair, Failures::default())]).await?;
            }
            Ok(())
        };
        if let Err(failure) = recorded.await {
            throttle.log_not_written("the address of a login", failure);
        }
    }
}

impl Drop for LoginAttempt {
    fn drop(&mut self) {
        let mut memory = self.throttle.memory();
        for subject in &self.subjects {
            if let Some(count) = memory.in_flight.get_mut(&subject.key) {
                *count -= 1;
                if *count == 0 {
                    memory.in_flight.remove(&subject.key);
                }
            }
        }
    }
}

fn keys(subjects: &[ThrottleSubject]) -> Vec<&str> {
    subjects.iter().map(|subject| subject.key.as_str()).collect()
}

/// Refuses an attempt of a subject that has to wait: until the time is over, and then until the
/// attempt that was allowed has been checked.
fn check(failures: Failures, backoff: BackoffPolicy, in_flight: usize, now: i64) -> Result<(), Error> {
    let wait = backoff.wait(failures.remaining(now));
    let left = match wait {
        0 => 0,
        // The clock has whole seconds: one more, so that no wait is cut short.
        seconds => seconds + 1 - now.saturating_sub(failures.last_at),
    };
    if left > 0 || (wait > 0 && in_flight > 0) {
        let seconds = left.max(1);
        let text = format!("Too many failed logins, try again in {seconds} s");
        let refused = Error::new(Reason::TooManyAttempts, text);
        return Err(refused.with_retry_after(Duration::from_secs(seconds.unsigned_abs())));
    }
    if in_flight >= AT_ONCE {
        let refused = Error::new(Reason::Overloaded, "Too many logins at once");
        return Err(refused.with_retry_after(Duration::from_secs(1)));
    }
    Ok(())
}

/// What one party has for itself: an IPv4 address, or the 64 bits of an IPv6 address that a
/// provider assigns.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Names are stored as digests: people type passwords where names belong.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
