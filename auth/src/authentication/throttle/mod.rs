//! Login throttling: exponential back-off per subject, with slow forgiveness.
//!
//! A failed login counts for its subjects. After [`BackoffPolicy::free`] failures a subject waits
//! before the next attempt, twice as long after each further failure, up to
//! [`BackoffPolicy::longest`]. One failure is forgiven for each period of `FORGIVENESS_PERIOD`
//! without another one. That is longer than any wait, so attempts as soon as they are allowed never
//! shorten the wait.
//!
//! A login has one of two sets of subjects:
//!
//! - A user who logged in from this address before is *known* here. The pair of name and address is
//!   then the only subject: neither failures of other names at the address nor failures of the name
//!   elsewhere delay this user.
//! - Otherwise the subjects are the address, the name and their pair. The pair waits twice as long
//!   as the address, so after each wait of the address other names precede one that fails
//!   repeatedly. The wait of the name is short, otherwise strangers could lock its user out
//!   everywhere.
//!
//! A rejected attempt is not checked and does not count. The counts are in the database, so a
//! restart forgives nothing and processes that share a database count together. They are also in
//! memory: a database that cannot be written (a full disk) does not disable the throttling.

mod backoff;
mod state;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use muse_proto::{Error, Reason};
use muse_server::client_network;
use muse_telemetry::log_throttle::LogThrottle;
use parking_lot::Mutex;
use sea_orm::DbErr;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::{
    clock,
    error::{database_failed, one_line},
    store::{Failures, Store},
};

use backoff::{BackoffPolicy, FULL_FORGIVENESS, OF_ADDRESS, OF_KNOWN_PAIR, OF_NAME, OF_UNKNOWN_PAIR};
use state::ThrottleState;

/// Logins of a subject that are checked at a time. A subject that has to wait has one.
const MAX_IN_FLIGHT: usize = 32;
/// A user is known at an address for so many seconds after the last login from there.
const KNOWN_FOR: i64 = 90 * 24 * 3600;
/// The time of the last login from an address is written at most once in so many seconds.
const LOGIN_RECORD_INTERVAL: i64 = 24 * 3600;
/// Subjects in the database after pruning, which deletes the oldest ones first.
const MAX_STORED_SUBJECTS: u64 = 1_000_000;

/// Unix time in seconds.
#[derive(Clone)]
struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.0()).finish()
    }
}

/// Counts failed logins and delays further attempts. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct LoginThrottle {
    store: Store,
    state: Arc<Mutex<ThrottleState>>,
    clock: Clock,
    log_throttle: LogThrottle,
}

/// A login that may be checked. [`LoginAttempt::failed`] or [`LoginAttempt::succeeded`] records the
/// outcome.
#[derive(Debug)]
pub(crate) struct LoginAttempt {
    throttle: LoginThrottle,
    /// The subjects for which the attempt counts as in flight. [`LoginThrottle::begin`] returns an
    /// attempt with all of them.
    subjects: Vec<ThrottleSubject>,
    pair: String,
    /// When the user last logged in from this address; 0 if never.
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
            state: Arc::default(),
            clock: Clock(Arc::new(clock)),
            log_throttle: LogThrottle::default(),
        }
    }

    /// Begins an attempt, if its subjects do not have to wait.
    ///
    /// # Errors
    ///
    /// [`Reason::TooManyAttempts`] or [`Reason::Overloaded`], with the time after which to retry.
    pub(crate) async fn begin(&self, username: &str, address: IpAddr) -> Result<LoginAttempt, Error> {
        let now = (self.clock.0)();
        let address = client_network(address).to_string();
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
        let mut state = self.state.lock();
        for (subject, stored) in subjects.into_iter().zip(stored) {
            let failures = state.merge(&subject.key, stored, now);
            let in_flight = state.in_flight.entry(subject.key.clone()).or_default();
            *in_flight += 1;
            let others = *in_flight - 1;
            let backoff = subject.backoff;
            attempt.subjects.push(subject);
            if let Err(error) = check(failures, backoff, others, now) {
                // The drop of the attempt locks the state.
                drop(state);
                return Err(error);
            }
        }
        drop(state);
        Ok(attempt)
    }

    /// Deletes outdated failures and logins from the database.
    pub(crate) async fn prune(&self) -> Result<u64, DbErr> {
        let now = (self.clock.0)();
        self.store.prune_logins(now - FULL_FORGIVENESS, now - KNOWN_FOR, MAX_STORED_SUBJECTS).await
    }

    /// Logs that the database could not be written, which does not affect the login.
    fn log_not_written(&self, what: &str, failure: DbErr) {
        if self.log_throttle.allows(what) {
            warn!(cause = one_line(&failure), "cannot write {what} to the database");
        }
    }
}

impl LoginAttempt {
    /// Whether the user is known at this address.
    pub(crate) fn is_of_known_user(&self) -> bool {
        // Other attempts have three subjects.
        self.subjects.len() == 1
    }

    /// Records a wrong name or password.
    pub(crate) async fn failed(self) {
        let throttle = &self.throttle;
        let now = (throttle.clock.0)();
        // Read again, because another process may have counted failures meanwhile.
        let stored = throttle.store.login_failures(&keys(&self.subjects)).await;
        let stored = stored.unwrap_or_else(|_| vec![Failures::default(); self.subjects.len()]);
        let mut changed = Vec::new();
        {
            let mut state = throttle.state.lock();
            for (subject, stored) in self.subjects.iter().zip(stored) {
                let count = state.merge(&subject.key, stored, now).remaining(now) + 1;
                let failures = Failures { count: count.min(subject.backoff.max_failures()), last_at: now };
                state.set_failures(&subject.key, failures);
                changed.push((subject.key.as_str(), failures));
            }
        }
        if let Err(failure) = throttle.store.set_login_failures(&changed).await {
            throttle.log_not_written("failed logins (they are counted in memory)", failure);
        }
    }

    /// Records a login: the user is known at this address from now on, and the failures of the pair
    /// are forgiven. Those of the address and of the name are not, because a guesser may have a
    /// password of their own.
    pub(crate) async fn succeeded(self) {
        let throttle = &self.throttle;
        let now = (throttle.clock.0)();
        throttle.state.lock().remove_failures(&self.pair);
        let record = async {
            if self.last_login <= now.saturating_sub(LOGIN_RECORD_INTERVAL) {
                throttle.store.record_login(&self.pair, now).await?;
            }
            let failures = throttle.store.login_failures(&[&self.pair]).await?;
            if failures.iter().any(|failures| failures.count > 0) {
                throttle.store.set_login_failures(&[(&self.pair, Failures::default())]).await?;
            }
            Ok(())
        };
        if let Err(failure) = record.await {
            throttle.log_not_written("the address of a login", failure);
        }
    }
}

impl Drop for LoginAttempt {
    fn drop(&mut self) {
        let mut state = self.throttle.state.lock();
        for subject in &self.subjects {
            state.remove_in_flight(&subject.key);
        }
    }
}

fn keys(subjects: &[ThrottleSubject]) -> Vec<&str> {
    subjects.iter().map(|subject| subject.key.as_str()).collect()
}

/// Rejects an attempt of a subject that has to wait: until the wait has passed, and then while the
/// attempt that was allowed is in flight.
fn check(failures: Failures, backoff: BackoffPolicy, in_flight: usize, now: i64) -> Result<(), Error> {
    let wait = backoff.wait(failures.remaining(now));
    let left = match wait {
        0 => 0,
        // The clock has whole seconds: one more, so that no wait is too short.
        seconds => seconds + 1 - now.saturating_sub(failures.last_at),
    };
    if left > 0 || (wait > 0 && in_flight > 0) {
        let seconds = left.max(1);
        let text = format!("Too many failed logins, try again in {seconds} s");
        let error = Error::new(Reason::TooManyAttempts, text);
        return Err(error.with_retry_after(Duration::from_secs(seconds.unsigned_abs())));
    }
    if in_flight >= MAX_IN_FLIGHT {
        let error = Error::new(Reason::Overloaded, "Too many logins at once");
        return Err(error.with_retry_after(Duration::from_secs(1)));
    }
    Ok(())
}

/// The key of a subject. Names are stored as digests, because users type passwords in their place.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    // Not the crate `hex`: it would replace this line.
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
