//! Slows down who guesses passwords: after [`FREE`] failures a user's name and an address are each refused for a
//! time that doubles with every further failure.
//!
//! A name alone must not be a way to lock its user out. So its wait is short at most, an address from which the user
//! has logged in before does not share it, and who is refused does not count as having failed. A guesser's own address
//! waits far longer than that, and the user gets in meanwhile.
//!
//! The counts are in the database: a restart forgives nothing, and processes that share a database count together.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use muse_proto::{Error, Reason};
use sea_orm::DbErr;
use sha2::{Digest, Sha256};

use crate::{
    clock,
    error::database_failed,
    store::{Failures, Store},
};

/// Failures that cost nothing: people mistype.
const FREE: i64 = 20;
/// Logins of one name or from one address that are checked at a time; after [`FREE`] failures it is one.
const AT_ONCE: i64 = 64;
/// For each of so many seconds without a failure one is forgiven.
const FORGIVEN_AFTER: i64 = 60;
/// The longest wait, in seconds.
const LONGEST_FOR_NAME: i64 = 60;
const LONGEST_FOR_ADDRESS: i64 = 15 * 60;
/// From where a user has not come for so long, they have to prove themselves once more.
const KNOWN_FOR: i64 = 90 * 24 * 3600;
/// A known address is noted again after so long.
const NOTED_FOR: i64 = 24 * 3600;
/// By then all is forgiven.
const FAILURES_MATTER_FOR: i64 = 24 * 3600;

/// Counts failed logins.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    store: Store,
    /// Logins that are being checked: many at once are many guesses.
    in_flight: Arc<Mutex<HashMap<String, i64>>>,
}

/// A login that may be checked. [`Attempt::failed`] and [`Attempt::succeeded`] say how it went.
#[derive(Debug)]
pub(crate) struct Attempt {
    throttle: Throttle,
    counted: Vec<Counted>,
    /// Stands for the user at this address.
    pair: String,
    known_since: i64,
    now: i64,
}

#[derive(Debug)]
struct Counted {
    subject: String,
    failures: Failures,
}

impl Throttle {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, in_flight: Arc::default() }
    }

    /// Lets a login be checked, or says when to try again.
    pub(crate) async fn begin(&self, username: &str, address: IpAddr) -> Result<Attempt, Error> {
        let now = clock::now();
        let address = network(address).to_string();
        let pair = digest(&["pair", username, &address]);
        let known_since = self.store.last_login(&pair).await.map_err(database_failed)?;
        let known = known_since > now - KNOWN_FOR;

        let mut limits = vec![(digest(&["address", &address]), LONGEST_FOR_ADDRESS)];
        if !known {
            limits.push((digest(&["name", username]), LONGEST_FOR_NAME));
        }
        let mut attempt = Attempt { throttle: self.clone(), counted: Vec::new(), pair, known_since, now };
        for (subject, longest) in limits {
            let failures = self.store.login_failures(&subject).await.map_err(database_failed)?;
            let in_flight = self.enter(&subject);
            attempt.counted.push(Counted { subject, failures });
            // A refusal drops the attempt, which takes it out of those in flight.
            check(failures, in_flight, longest, now)?;
        }
        Ok(attempt)
    }

    /// Forgets what no longer matters.
    pub(crate) async fn prune(&self) -> Result<u64, DbErr> {
        let now = clock::now();
        self.store.prune_logins(now - FAILURES_MATTER_FOR, now - KNOWN_FOR).await
    }

    /// Counts one more in flight, and says how many there were.
    fn enter(&self, subject: &str) -> i64 {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let count = in_flight.entry(subject.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    fn leave(&self, subject: &str) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_flight.get_mut(subject) {
            *count -= 1;
            if *count == 0 {
                in_flight.remove(subject);
            }
        }
    }
}

impl Attempt {
    /// The name or the password was wrong.
    pub(crate) async fn failed(self) -> Result<(), Error> {
        for counted in &self.counted {
            // Read anew: others may have failed meanwhile.
            let before =
                self.throttle.store.login_failures(&counted.subject).await.map_err(database_failed)?;
            let failures = Failures { count: after_forgiveness(before, self.now) + 1, last_at: self.now };
            let noted = self.throttle.store.set_login_failures(&counted.subject, failures).await;
            noted.map_err(database_failed)?;
        }
        Ok(())
    }

    /// The user may come from this address, and what others have tried under the name is forgiven; what this address
    /// has tried under other names is not.
    pub(crate) async fn succeeded(self) -> Result<(), Error> {
        let store = &self.throttle.store;
        if self.known_since <= self.now - NOTED_FOR {
            store.note_login(&self.pair, self.now).await.map_err(database_failed)?;
        }
        for counted in self.counted.iter().skip(1).filter(|counted| counted.failures.count > 0) {
            let none = Failures::default();
            store.set_login_failures(&counted.subject, none).await.map_err(database_failed)?;
        }
        Ok(())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        for counted in &self.counted {
            self.throttle.leave(&counted.subject);
        }
    }
}

/// Refuses who has to wait: until the time is over, and then until the one who was let in has been checked.
fn check(failures: Failures, in_flight: i64, longest: i64, now: i64) -> Result<(), Error> {
    // The clock's seconds may be all but over: one more, so that none is cut short.
    let left = match penalty(failures.count, longest) {
        0 => 0,
        seconds => failures.last_at + seconds + 1 - now,
    };
    let spent = after_forgiveness(failures, now) >= FREE;
    if left > 0 || (spent && in_flight > 0) {
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

/// Seconds without another try after so many failures.
fn penalty(failures: i64, longest: i64) -> i64 {
    match failures - FREE {
        ..0 => 0,
        further @ 0..16 => longest.min(1 << further),
        _ => longest,
    }
}

fn after_forgiveness(failures: Failures, now: i64) -> i64 {
    (failures.count - (now - failures.last_at).max(0) / FORGIVEN_AFTER).max(0)
}

/// What one party has for itself: an IPv4 address, or the 64 bits of an IPv6 address that a provider hands out.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Names are kept as digests: people type passwords where names belong.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::store;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    async fn fail(throttle: &Throttle, name: &str, address: IpAddr) -> Option<Duration> {
        match throttle.begin(name, address).await {
            Ok(attempt) => {
                attempt.failed().await.unwrap();
                None
            }
            Err(refused) => {
                assert_eq!(refused.reason(), Reason::TooManyAttempts);
                refused.retry_after()
            }
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_bound_and_time_forgives() {
        let waits: Vec<i64> = (FREE - 1..FREE + 8).map(|count| penalty(count, LONGEST_FOR_NAME)).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(penalty(1_000_000, LONGEST_FOR_ADDRESS), LONGEST_FOR_ADDRESS);
        let failures = Failures { count: 5, last_at: 1000 };
        let left: Vec<i64> =
            [900, 1000, 1059, 1060, 1299, 9999].map(|now| after_forgiveness(failures, now)).into();
        assert_eq!(left, [5, 5, 5, 4, 1, 0]);
    }

    #[tokio::test]
    async fn an_address_that_guesses_is_refused_and_others_are_not() {
        let (_folder, store) = store().await;
        let throttle = Throttle::new(store);
        for number in 0..FREE {
            assert_eq!(fail(&throttle, &format!("user {number}"), address(1)).await, None);
        }
        assert!(fail(&throttle, "another", address(1)).await.is_some());
        assert!(throttle.begin("another", address(2)).await.is_ok());
        // As a restart does.
        let again = Throttle::new(throttle.store.clone());
        assert!(again.begin("another", address(1)).await.is_err());
    }

    #[tokio::test]
    async fn a_name_that_is_guessed_is_refused_but_not_where_its_user_is_known() {
        let (_folder, store) = store().await;
        let throttle = Throttle::new(store);
        throttle.begin("ann", HERE).await.unwrap().succeeded().await.unwrap();
        for number in 0..FREE {
            assert_eq!(fail(&throttle, "ann", address(u8::try_from(number).unwrap())).await, None);
        }
        // The first wait: its second, and the one more, less what has passed.
        let wait = fail(&throttle, "ann", address(99)).await;
        assert!(wait.is_some_and(|wait| (1..=2).contains(&wait.as_secs())), "{wait:?}");
        assert!(throttle.begin("ann", HERE).await.is_ok());
        assert!(throttle.begin("bob", address(99)).await.is_ok());
    }

    #[tokio::test]
    async fn guesses_at_the_same_moment_are_few() {
        let (_folder, store) = store().await;
        let throttle = Throttle::new(store);
        let mut attempts = Vec::new();
        while let Ok(attempt) = throttle.begin("ann", address(1)).await {
            attempts.push(attempt);
        }
        assert_eq!(attempts.len() as i64, AT_ONCE);
        drop(attempts);
        assert!(throttle.begin("ann", address(1)).await.is_ok(), "who hangs up has not failed");
        assert!(throttle.in_flight.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv6_party_has_a_network() {
        let parse = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(parse("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(parse("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
