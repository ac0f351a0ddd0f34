//! Simulations of the throttling over days, with a clock that the tests set.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicI64, Ordering},
};

use sea_orm::{ConnectionTrait, Database};
use tempfile::TempDir;

use super::{backoff::FORGIVENESS_PERIOD, state::GENERATION_CAPACITY, *};
use crate::store::fixture::store;

const DAY: i64 = 24 * 3600;
const START: i64 = 1_700_000_000;
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));

fn address(number: usize) -> IpAddr {
    let [_, _, third, fourth] = u32::try_from(number).unwrap().to_be_bytes();
    IpAddr::from([10, 0, third, fourth])
}

/// A throttle whose clock the test sets.
struct Simulation {
    throttle: LoginThrottle,
    clock: Arc<AtomicI64>,
    folder: TempDir,
}

impl Simulation {
    async fn new() -> Self {
        let (folder, store) = store().await;
        let clock = Arc::new(AtomicI64::new(START));
        let read = Arc::clone(&clock);
        let throttle = LoginThrottle::with_clock(store, move || read.load(Ordering::SeqCst));
        Self { throttle, clock, folder }
    }

    /// The same database after a restart.
    fn restarted(self) -> Self {
        let read = Arc::clone(&self.clock);
        let throttle =
            LoginThrottle::with_clock(self.throttle.store.clone(), move || read.load(Ordering::SeqCst));
        Self { throttle, ..self }
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn advance(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    /// A wrong password: `None` if it was checked, otherwise the seconds to wait.
    async fn fail(&self, name: &str, address: IpAddr) -> Option<i64> {
        match self.throttle.begin(name, address).await {
            Ok(attempt) => {
                attempt.failed().await;
                None
            }
            Err(error) => {
                assert_eq!(error.reason(), Reason::TooManyAttempts);
                Some(i64::try_from(error.retry_after().unwrap().as_secs()).unwrap())
            }
        }
    }

    /// The right password: returns whether it was checked.
    async fn succeed(&self, name: &str, address: IpAddr) -> bool {
        match self.throttle.begin(name, address).await {
            Ok(attempt) => {
                attempt.succeeded().await;
                true
            }
            Err(_) => false,
        }
    }

    /// Fails until the name has to wait at the address, and returns the number of attempts.
    async fn exhaust(&self, name: &str, address: IpAddr) -> usize {
        let mut tries = 0;
        while self.fail(name, address).await.is_none() {
            tries += 1;
        }
        tries
    }

    /// A guesser who retries as soon as allowed: returns the number of attempts within so many
    /// seconds.
    async fn guess(&self, seconds: i64, mut next: impl FnMut(usize) -> (String, IpAddr)) -> usize {
        let end = self.now() + seconds;
        let mut tries = 0;
        while self.now() < end {
            let (name, address) = next(tries);
            match self.fail(&name, address).await {
                None => tries += 1,
                Some(wait) => self.advance(wait),
            }
        }
        tries
    }
}

#[test]
fn wait_doubles_up_to_its_bound() {
    let waits = |backoff: BackoffPolicy| (19..33).map(|failures| backoff.wait(failures)).collect::<Vec<_>>();
    assert_eq!(waits(OF_NAME), [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60]);
    assert_eq!(waits(OF_ADDRESS), [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
    assert_eq!(waits(OF_UNKNOWN_PAIR), [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1800, 1800, 1800]);
    assert_eq!(OF_ADDRESS.wait(i64::MAX), 900);
    assert_eq!((OF_ADDRESS.max_failures(), OF_NAME.max_failures()), (30, 26));
}

#[test]
fn forgiveness_is_slower_than_every_wait() {
    for backoff in [OF_ADDRESS, OF_NAME, OF_KNOWN_PAIR, OF_UNKNOWN_PAIR] {
        assert!(backoff.longest < FORGIVENESS_PERIOD);
    }
    let failures = Failures { count: 5, last_at: 100_000 };
    let after = |seconds| failures.remaining(100_000 + seconds);
    let forgiven = [-900, 0, 3599, 3600, 7200, 5 * 3600, DAY].map(after);
    assert_eq!(forgiven, [5, 5, 5, 4, 3, 0, 0]);
    assert_eq!(Failures { count: 30, last_at: 0 }.remaining(DAY - 1), 30 - 23);
    assert_eq!(Failures { count: 30, last_at: 0 }.remaining(DAY), 0);
}

#[tokio::test]
async fn address_wait_reaches_15_minutes() {
    let simulation = Simulation::new().await;
    let mut longest = 0;
    for number in 0..200 {
        // A new name each time, so that only the address waits.
        if let Some(wait) = simulation.fail(&format!("user {number}"), address(1)).await {
            longest = longest.max(wait);
            simulation.advance(wait);
        }
    }
    assert_eq!(longest, 15 * 60 + 1);
}

#[tokio::test]
async fn guesser_of_one_name_has_few_attempts_a_day() {
    let simulation = Simulation::new().await;
    let mut days = Vec::new();
    for _ in 0..7 {
        days.push(simulation.guess(DAY, |_| ("maria".to_owned(), address(1))).await);
    }
    // docs/api/limits.md has the numbers: 20 at once and 48 a day.
    assert!(days[0] <= 80 && days[1..].iter().all(|tries| *tries <= 48), "{days:?}");
}

#[tokio::test]
async fn guesser_of_many_names_has_few_attempts_a_day() {
    let simulation = Simulation::new().await;
    let mut days = Vec::new();
    for _ in 0..7 {
        days.push(simulation.guess(DAY, |number| (format!("user {number}"), address(1))).await);
    }
    assert!(days[0] <= 130 && days[1..].iter().all(|tries| *tries <= 96), "{days:?}");
}

#[tokio::test]
async fn simultaneous_guesser_has_few_attempts_a_day() {
    for names in [1, 1000] {
        let simulation = Simulation::new().await;
        let name = |number: usize| format!("user {}", number % names);
        // All free failures but one, then as many simultaneous attempts as are allowed.
        let mut tries = 0;
        while tries < 19 {
            assert_eq!(simulation.fail(&name(tries), address(1)).await, None);
            tries += 1;
        }
        let mut attempts = Vec::new();
        while let Ok(attempt) = simulation.throttle.begin(&name(tries), address(1)).await {
            attempts.push(attempt);
            tries += 1;
        }
        futures::future::join_all(attempts.into_iter().map(LoginAttempt::failed)).await;
        tries += simulation.guess(DAY, |number| (name(number), address(1))).await;
        assert!(tries <= if names == 1 { 100 } else { 150 }, "{tries} with {names} names");
    }
}

#[tokio::test]
async fn patient_guesser_has_no_more_attempts() {
    // Waits for forgiveness, then uses up what was forgiven.
    for pause in [3600, 4 * 3600, 10 * 3600, DAY] {
        let simulation = Simulation::new().await;
        let mut tries = 0;
        while simulation.now() < START + 7 * DAY {
            tries += simulation.guess(1, |number| (format!("{pause} {number}"), address(1))).await;
            simulation.advance(pause);
        }
        assert!(tries <= 20 + 7 * 96, "{pause} s: {tries}");
    }
}

#[tokio::test]
async fn guessers_of_one_name_at_many_addresses_are_bounded() {
    let simulation = Simulation::new().await;
    let tries = simulation.guess(DAY / 4, |number| ("maria".to_owned(), address(number))).await;
    // One a minute, after the first 26.
    assert!(tries <= 26 + 6 * 60, "{tries}");
}

#[tokio::test]
async fn known_user_is_not_delayed_by_a_guesser_at_the_same_address() {
    let simulation = Simulation::new().await;
    assert!(simulation.succeed("bob", address(1)).await);
    let mut entered = 0;
    for second in 0..3600 {
        // The guesser precedes the user in each second and uses each free attempt, with one name
        // and with many.
        for name in ["maria".to_owned(), format!("user {second}")] {
            let _ = simulation.fail(&name, address(1)).await;
        }
        if second % 60 == 0 {
            assert!(simulation.succeed("bob", address(1)).await, "after {second} s");
            entered += 1;
        }
        simulation.advance(1);
    }
    assert_eq!(entered, 60);
}

#[tokio::test]
async fn known_user_is_not_delayed_by_guessers_elsewhere() {
    let simulation = Simulation::new().await;
    assert!(simulation.succeed("ann", HOME).await);
    for number in 0..20 {
        assert_eq!(simulation.fail("ann", address(number)).await, None);
    }
    let wait = simulation.fail("ann", address(99)).await;
    assert!(wait.is_some_and(|wait| (1..=2).contains(&wait)), "{wait:?}");
    assert!(simulation.succeed("ann", HOME).await);
    assert!(simulation.throttle.begin("bob", address(99)).await.is_ok());
}

#[tokio::test]
async fn known_pair_has_its_own_limit() {
    let simulation = Simulation::new().await;
    assert!(simulation.succeed("ann", HOME).await);
    assert_eq!(simulation.exhaust("ann", HOME).await, 20);
    // The failures count neither for the address nor for the name.
    assert!(simulation.throttle.begin("bob", HOME).await.is_ok());
    assert!(simulation.throttle.begin("ann", address(1)).await.is_ok());
    let tries = simulation.guess(DAY, |_| ("ann".to_owned(), HOME)).await;
    assert!(tries <= 110, "{tries}");
}

#[tokio::test]
async fn new_user_logs_in_beside_a_loop_of_one_name() {
    let simulation = Simulation::new().await;
    let mut looped = 0;
    for _ in 0..4 * 3600 {
        looped += usize::from(simulation.fail("maria", address(1)).await.is_none());
        simulation.advance(1);
    }
    assert!(looped > 20);
    // The loop continues, and precedes the user in each second.
    let mut waited = 0;
    loop {
        let _ = simulation.fail("maria", address(1)).await;
        if simulation.succeed("carol", address(1)).await {
            break;
        }
        simulation.advance(1);
        waited += 1;
        assert!(waited <= 15 * 60 + 1, "carol is never allowed an attempt");
    }
    assert!(simulation.succeed("carol", address(1)).await, "and is known from then on");
}

#[tokio::test]
async fn success_forgives_the_pair_and_not_the_address() {
    let simulation = Simulation::new().await;
    for _ in 0..15 {
        assert_eq!(simulation.fail("ann", address(1)).await, None);
    }
    assert!(simulation.succeed("ann", address(1)).await);
    assert_eq!(simulation.exhaust("ann", address(1)).await, 20, "the pair begins anew");
    assert_eq!(simulation.exhaust("another", address(1)).await, 5, "the address does not");
}

#[tokio::test]
async fn user_is_known_at_an_address_for_90_days() {
    let simulation = Simulation::new().await;
    assert!(simulation.succeed("ann", HOME).await);
    for (days, known) in [(89, true), (2, false)] {
        simulation.advance(days * DAY);
        simulation.exhaust("mallory", HOME).await;
        assert_eq!(simulation.throttle.begin("ann", HOME).await.is_ok(), known, "{days} days later");
    }
}

#[tokio::test]
async fn clock_set_back_does_not_lengthen_waits() {
    for back in [10, 3600, 2 * DAY, 400 * DAY] {
        for restart in [false, true] {
            let mut simulation = Simulation::new().await;
            let mut tries = 0;
            while tries < 21 {
                match simulation.fail(&format!("user {tries}"), address(1)).await {
                    None => tries += 1,
                    Some(wait) => simulation.advance(wait),
                }
            }
            simulation.advance(-back);
            if restart {
                simulation = simulation.restarted();
            }
            let wait = simulation.fail("another", address(1)).await;
            assert!(wait.is_some_and(|wait| wait <= 3), "{back} s back, restart {restart}: {wait:?}");
            simulation.advance(3);
            assert_eq!(simulation.fail("another", address(1)).await, None, "{back} s, restart {restart}");
        }
    }
}

#[tokio::test]
async fn restart_forgives_nothing() {
    let simulation = Simulation::new().await;
    simulation.exhaust("ann", address(1)).await;
    let simulation = simulation.restarted();
    assert!(simulation.fail("another", address(1)).await.is_some());
    assert_eq!(simulation.fail("another", address(2)).await, None);
}

#[tokio::test]
async fn failures_count_while_the_database_is_not_writable() {
    let simulation = Simulation::new().await;
    // Like on a full disk, each write of the throttling fails.
    let url = format!("sqlite://{}?mode=rw", simulation.folder.path().join("muse.db").display());
    let other = Database::connect(url).await.unwrap();
    for (number, table) in ["login_failures", "known_addresses"].into_iter().enumerate() {
        for event in ["INSERT", "UPDATE"] {
            let trigger = format!(
                "CREATE TRIGGER full_{number}_{event} BEFORE {event} ON {table} \
                 BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            );
            other.execute_unprepared(&trigger).await.unwrap();
        }
    }
    assert!(simulation.succeed("ann", HOME).await);
    assert_eq!(simulation.exhaust("ann", address(1)).await, 20);
    let stored = simulation.throttle.store.login_failures(&[&digest(&["name", "ann"])]).await.unwrap();
    assert_eq!(stored, [Failures::default()], "nothing was written");
    let tries = simulation.guess(DAY, |_| ("ann".to_owned(), address(1))).await;
    assert!(tries <= 60, "{tries}");
}

#[tokio::test]
async fn simultaneous_guesses_are_bounded_and_all_count() {
    let simulation = Simulation::new().await;
    let mut attempts = Vec::new();
    let error = loop {
        match simulation.throttle.begin("ann", address(1)).await {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => break error,
        }
    };
    assert_eq!((attempts.len(), error.reason()), (MAX_IN_FLIGHT, Reason::Overloaded));
    drop(attempts);
    assert!(
        simulation.throttle.begin("ann", address(1)).await.is_ok(),
        "a cancelled login does not count as failed"
    );
    assert!(simulation.throttle.state.lock().in_flight.is_empty());

    let mut attempts = Vec::new();
    while let Ok(attempt) = simulation.throttle.begin("ann", address(1)).await {
        attempts.push(attempt);
    }
    futures::future::join_all(attempts.into_iter().map(LoginAttempt::failed)).await;
    // 32 failures, of which 30 count, so the wait of the pair is the longest one.
    assert_eq!(simulation.fail("ann", address(1)).await, Some(30 * 60 + 1));
}

#[tokio::test]
async fn attempts_after_a_wait_are_checked_one_at_a_time() {
    let simulation = Simulation::new().await;
    simulation.exhaust("ann", address(1)).await;
    simulation.advance(10);
    let first = simulation.throttle.begin("ann", address(1)).await;
    assert!(first.is_ok());
    assert_eq!(simulation.fail("ann", address(1)).await, Some(1));
    drop(first);
    assert_eq!(simulation.fail("ann", address(1)).await, None);
}

#[tokio::test]
async fn unlimited_subjects_do_not_fill_the_memory() {
    let mut state = ThrottleState::default();
    let failures = Failures { count: 1, last_at: START };
    for number in 0..5 * GENERATION_CAPACITY {
        state.set_failures(&number.to_string(), failures);
    }
    assert!(state.young.len() <= GENERATION_CAPACITY && state.old.len() <= GENERATION_CAPACITY);
    assert_eq!(state.failures(&(5 * GENERATION_CAPACITY - 1).to_string()), Some(failures));
}

#[tokio::test]
async fn unlimited_subjects_do_not_fill_the_database() {
    let (_folder, store) = store().await;
    for number in 0..50 {
        let failures = Failures { count: 1, last_at: START + number };
        store.set_login_failures(&[(&number.to_string(), failures)]).await.unwrap();
    }
    // First those older than the limit, then the oldest beyond the bound.
    assert_eq!(store.prune_logins(START + 5, 0, 1000).await.unwrap(), 5);
    assert_eq!(store.prune_logins(START + 5, 0, 20).await.unwrap(), 25);
    assert_eq!(store.prune_logins(START + 5, 0, 20).await.unwrap(), 0);
    assert_eq!(store.login_failures(&["49"]).await.unwrap()[0].count, 1);
    assert_eq!(store.login_failures(&["29"]).await.unwrap()[0].count, 0);
}

#[test]
fn ipv6_address_stands_for_its_network() {
    let parse = |text: &str| client_network(text.parse().unwrap()).to_string();
    assert_eq!(parse("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(parse("::ffff:192.0.2.7"), "192.0.2.7");
}
