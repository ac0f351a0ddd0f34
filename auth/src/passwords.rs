//! Hashes passwords, a bounded number at a time.
//!
//! A hash costs some 20 ms of a core and 19 MiB, on purpose. So only as many run at once as there are cores, a
//! bounded number waits, and the rest is turned away: neither memory nor waiting time grows with the crowd.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash,
};
use muse_proto::{Error, Reason};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{AuthError, error::internal};

/// OWASP's recommendation for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Longer than any password; what is longer is wrong without hashing it.
pub(crate) const LONGEST: usize = 1024;
/// How many wait for each core. At 20 ms each, the last one waits less than a second.
const WAITING_PER_CORE: usize = 32;

/// Checks that a password may be given to a user.
pub(crate) fn check_new(password: &str) -> Result<(), AuthError> {
    if (1..=LONGEST).contains(&password.len()) { Ok(()) } else { Err(AuthError::BadPassword) }
}

/// Hashes a new password; takes its time, so not on an async thread.
pub(crate) fn hash(password: &SecretString) -> Result<String, AuthError> {
    let failed = |failure: &dyn ToString| AuthError::Hash(failure.to_string());
    let argon2 = argon2().map_err(|failure| failed(&failure))?;
    let hash: PasswordHash =
        argon2.hash_password(password.expose_secret().as_bytes()).map_err(|failure| failed(&failure))?;
    Ok(hash.to_string())
}

fn argon2() -> Result<Argon2<'static>, argon2::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Checks passwords of users who log in.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    /// One permit for each check that runs or waits.
    admitted: Arc<Semaphore>,
    /// One permit for each check that runs.
    running: Arc<Semaphore>,
    /// What an unknown user's password is compared with, so that it takes the same time.
    dummy: Arc<str>,
}

impl Checker {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_limits(cores, cores * WAITING_PER_CORE)
    }

    fn with_limits(running: usize, waiting: usize) -> Self {
        let (salt, output) = ("bXVzZS1hdXRoLWR1bW15", "A".repeat(43));
        Self {
            admitted: Arc::new(Semaphore::new(running + waiting)),
            running: Arc::new(Semaphore::new(running)),
            dummy: format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${output}").into(),
        }
    }

    /// Whether `password` is the one of `hash`. Without a hash, there being no such user, it is not, and that takes
    /// as long to say.
    pub(crate) async fn check(&self, password: SecretString, hash: Option<String>) -> Result<bool, Error> {
        let overloaded = || Error::new(Reason::Overloaded, "Too many logins at once");
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        let dummy = self.dummy.clone();
        let checked = spawn_blocking(move || {
            let right = verify(&password, hash.as_deref().unwrap_or(&dummy));
            // Only here: a caller who has gone does not stop the hashing.
            drop((running, admitted));
            right.map(|right| right && hash.is_some())
        });
        checked.await.map_err(internal)?.map_err(internal)
    }
}

fn verify(password: &SecretString, hash: &str) -> Result<bool, String> {
    let hash = PasswordHash::new(hash).map_err(|failure| format!("a stored hash is damaged: {failure}"))?;
    let argon2 = argon2().map_err(|failure| failure.to_string())?;
    match argon2.verify_password(password.expose_secret().as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(failure) => Err(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn a_password_is_right_or_wrong() {
        let hash = hash(&secret("pass\0word")).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let checker = Checker::new();
        assert_eq!(checker.check(secret("pass\0word"), Some(hash.clone())).await, Ok(true));
        assert_eq!(checker.check(secret("pass"), Some(hash)).await, Ok(false));
        assert_eq!(checker.check(secret("pass"), None).await, Ok(false));
    }

    #[tokio::test]
    async fn a_damaged_hash_is_a_fault_of_ours() {
        let refused = Checker::new().check(secret("x"), Some("$argon2id$".to_owned())).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::Internal);
    }

    #[tokio::test]
    async fn a_crowd_is_turned_away() {
        let checker = Checker::with_limits(1, 1);
        let checks = (0..8).map(|_| checker.check(secret("x"), None));
        let outcomes = futures::future::join_all(checks).await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(false)).count(), 2);
        let refused = outcomes.into_iter().filter_map(Result::err).map(|error| error.reason());
        assert!(refused.eq([Reason::Overloaded; 6]));
        assert_eq!(checker.check(secret("x"), None).await, Ok(false), "and let in later");
    }
}
