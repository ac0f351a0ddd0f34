//! Who may log in.

use std::{net::IpAddr, time::Duration};

use muse_proto::{Error, Reason};
use muse_server::is_loopback;
use muse_telemetry::metrics::{IntCounterVec, Metrics};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::throttle::LoginThrottle;
use crate::{
    audit::Event,
    bootstrap::ADMIN,
    error::{database_failed, one_line},
    passwords::{LONGEST, PasswordHashPool, Priority, Verdict},
    store::{Store, UserRow},
    usernames::{composed, may_exist},
};

/// A refusal is answered no sooner than this after the request came: what was wrong cannot be read from the time.
const REFUSED_AFTER: Duration = Duration::from_millis(100);

/// Counts what became of logins.
#[derive(Debug, Clone)]
pub(crate) struct LoginMetrics(IntCounterVec);

impl LoginMetrics {
    const OUTCOMES: [&str; 5] = ["ok", "failed", "throttled", "overloaded", "error"];

    /// Adds the counter to the service's metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let logins = metrics.counters(
            "muse_logins_total",
            "Passwords that were checked, or not, by outcome: ok, failed (wrong, or the user may not log in), throttled \
             (after too many failures), overloaded, error.",
            &["outcome"],
        );
        for outcome in Self::OUTCOMES {
            logins.with_label_values(&[outcome]);
        }
        Self(logins)
    }

    fn count(&self, entered: &Result<UserRow, Error>) {
        let [ok, failed, throttled, overloaded, error] = Self::OUTCOMES;
        let outcome = match entered.as_ref().map_err(Error::reason) {
            Ok(_) => ok,
            Err(Reason::BadCredentials) => failed,
            Err(Reason::TooManyAttempts) => throttled,
            Err(Reason::Overloaded) => overloaded,
            Err(_) => error,
        };
        self.0.with_label_values(&[outcome]).inc();
    }
}

/// Checks names and passwords.
#[derive(Debug, Clone)]
pub(crate) struct PasswordAuthenticator {
    pub(crate) store: Store,
    pub(crate) hash_pool: PasswordHashPool,
    pub(crate) throttle: LoginThrottle,
    pub(crate) logins: LoginMetrics,
}

impl PasswordAuthenticator {
    /// The user, if the password is right and the user may log in.
    pub(crate) async fn log_in(
        &self,
        name: String,
        password: SecretString,
        from: IpAddr,
    ) -> Result<UserRow, Error> {
        let came = Instant::now();
        let entered = self.check(&name, password, from).await;
        self.logins.count(&entered);
        if entered.is_err() {
            sleep_until(came + REFUSED_AFTER).await;
        }
        entered
    }

    async fn check(&self, name: &str, password: SecretString, from: IpAddr) -> Result<UserRow, Error> {
        let event = |by| Event { action: "log in", by, user: None, from: Some(from) };
        let user = if may_exist(name) { self.store.user_of_any_form(name).await } else { Ok(None) };
        let user = user.map_err(database_failed)?;
        let known_name = user.as_ref().map(|user| user.username.clone());
        let event = event(known_name.as_deref());

        // All forms of a name are one for the throttling, also where no user has it.
        let name = known_name.clone().unwrap_or_else(|| composed(name));
        let attempt =
            self.throttle.begin(&name, from).await.inspect_err(|_| event.refused("too many failures"))?;
        let priority = if attempt.is_of_known_user() { Priority::Known } else { Priority::Unknown };
        let refused = match self.verdict(user, password, from, priority).await? {
            Ok(user) => {
                attempt.succeeded().await;
                event.granted();
                return Ok(user);
            }
            Err(why) => why,
        };
        attempt.failed().await;
        event.refused(refused);
        Err(Error::new(Reason::BadCredentials, "Unauthorized"))
    }

    /// The user, or why not. An unknown name and a wrong password take the same steps.
    async fn verdict(
        &self,
        user: Option<UserRow>,
        password: SecretString,
        from: IpAddr,
        priority: Priority,
    ) -> Result<Result<UserRow, &'static str>, Error> {
        if !(1..=LONGEST).contains(&password.expose_secret().len()) {
            return Ok(Err("wrong password"));
        }
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verdict = self.hash_pool.check(password.clone(), stored, priority).await?;
        let (Some(user), Verdict::Right { outdated }) = (user, verdict) else {
            return Ok(Err("wrong name or password"));
        };
        if user.disabled {
            return Ok(Err("disabled"));
        }
        // However the gateway came to be reachable: the password that everyone knows is for this machine alone.
        if user.username == ADMIN && password.expose_secret() == ADMIN && !is_loopback(from) {
            return Ok(Err("the default password, from another machine"));
        }
        if outdated {
            let newer = self.hash_pool.hash(password).await?;
            let upgraded = self.store.upgrade_hash(&user.username, &user.password_hash, &newer).await;
            if let Err(failure) = upgraded {
                // The password is right all the same; the next login makes another attempt.
                warn!(cause = one_line(&failure), "cannot replace an outdated password hash");
            }
        }
        Ok(Ok(user))
    }
}
