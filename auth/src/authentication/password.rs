//! Authentication by name and password.

use std::{net::IpAddr, time::Duration};

use muse_proto::{Error, Reason};
use muse_server::is_loopback;
use muse_telemetry::metrics::{IntCounterVec, Metrics};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::throttle::LoginThrottle;
use crate::{
    audit::AuditEvent,
    error::{database_failed, one_line},
    passwords::{MAX_PASSWORD_BYTES, PasswordCheck, PasswordHashPool, Priority, nfc as nfc_password},
    store::{Store, UserRow},
    usernames::{ADMIN, is_valid_existing, nfc},
};

/// The least time until a failed login returns, so that the time does not reveal what was wrong.
const MIN_FAILURE_TIME: Duration = Duration::from_millis(100);

/// Counts logins by outcome.
#[derive(Debug, Clone)]
pub(crate) struct LoginMetrics(IntCounterVec);

impl LoginMetrics {
    const OUTCOMES: [&str; 5] = ["ok", "failed", "throttled", "overloaded", "error"];

    /// Registers the counter.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let logins = metrics.counters(
            "muse_logins_total",
            "Logins by outcome: ok, failed (wrong name or password, or a disabled user), throttled (too many failures \
             before), overloaded, error.",
            &["outcome"],
        );
        for outcome in Self::OUTCOMES {
            logins.with_label_values(&[outcome]);
        }
        Self(logins)
    }

    fn count(&self, login: &Result<UserRow, Error>) {
        let [ok, failed, throttled, overloaded, error] = Self::OUTCOMES;
        let outcome = match login.as_ref().map_err(Error::reason) {
            Ok(_) => ok,
            Err(Reason::BadCredentials) => failed,
            Err(Reason::TooManyAttempts) => throttled,
            Err(Reason::Overloaded) => overloaded,
            Err(_) => error,
        };
        self.0.with_label_values(&[outcome]).inc();
    }
}

/// Authenticates users by name and password.
#[derive(Debug, Clone)]
pub(crate) struct PasswordAuthenticator {
    pub(crate) store: Store,
    pub(crate) hash_pool: PasswordHashPool,
    pub(crate) throttle: LoginThrottle,
    pub(crate) metrics: LoginMetrics,
}

impl PasswordAuthenticator {
    /// The user, if the password is right and the user is enabled.
    pub(crate) async fn log_in(
        &self,
        name: String,
        password: SecretString,
        from: IpAddr,
    ) -> Result<UserRow, Error> {
        let began = Instant::now();
        let login = self.authenticate(&name, password, from).await;
        self.metrics.count(&login);
        if login.is_err() {
            sleep_until(began + MIN_FAILURE_TIME).await;
        }
        login
    }

    async fn authenticate(&self, name: &str, password: SecretString, from: IpAddr) -> Result<UserRow, Error> {
        let user = if is_valid_existing(name) { self.store.find_user(name).await } else { Ok(None) };
        let user = user.map_err(database_failed)?;
        let known_name = user.as_ref().map(|user| user.username.clone());
        let event = AuditEvent { action: "log in", by: known_name.as_deref(), user: None, from: Some(from) };

        // All normal forms of a name are throttled as one, also if no user has the name.
        let name = known_name.clone().unwrap_or_else(|| nfc(name));
        let attempt =
            self.throttle.begin(&name, from).await.inspect_err(|error| event.rejected(error.message()))?;
        let priority = if attempt.is_of_known_user() { Priority::Known } else { Priority::Unknown };
        let problem = match self.check_password(user, password, from, priority).await? {
            Ok(user) => {
                attempt.succeeded().await;
                event.granted();
                return Ok(user);
            }
            Err(problem) => problem,
        };
        attempt.failed().await;
        event.rejected(problem);
        Err(Error::new(Reason::BadCredentials, "Unauthorized"))
    }

    /// The user, or the reason for the audit log. An unknown name and a wrong password take the
    /// same steps.
    async fn check_password(
        &self,
        user: Option<UserRow>,
        password: SecretString,
        from: IpAddr,
        priority: Priority,
    ) -> Result<Result<UserRow, &'static str>, Error> {
        if !(1..=MAX_PASSWORD_BYTES).contains(&nfc_password(&password).expose_secret().len()) {
            return Ok(Err("wrong password"));
        }
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let check = self.hash_pool.check(password.clone(), stored, priority).await?;
        let (Some(user), PasswordCheck::Match { outdated }) = (user, check) else {
            return Ok(Err("wrong name or password"));
        };
        if user.disabled {
            return Ok(Err("disabled"));
        }
        // The gateway may be reachable although the service was not configured as exposed.
        if user.username == ADMIN && password.expose_secret() == ADMIN && !is_loopback(from) {
            return Ok(Err("the default password, from another machine"));
        }
        if outdated {
            let newer = self.hash_pool.hash(password).await?;
            let upgraded = self.store.upgrade_hash(&user.username, &user.password_hash, &newer).await;
            if let Err(failure) = upgraded {
                // The login succeeds nevertheless; the next one tries again.
                warn!(cause = one_line(&failure), "cannot replace an outdated password hash");
            }
        }
        Ok(Ok(user))
    }
}
