//! Rate limit for repeated log messages.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time for which a message is suppressed after it was logged.
const INTERVAL: Duration = Duration::from_secs(30);
/// Maximum stored messages. While as many were logged within the interval, other messages are
/// suppressed.
const CAPACITY: usize = 64;

/// Decides whether a message is logged. Clones share the stored messages.
#[derive(Debug, Clone, Default)]
pub struct LogThrottle(Arc<Mutex<HashMap<String, Instant>>>);

impl LogThrottle {
    /// Whether the message `key` is to be logged: it was not logged within the last 30 seconds.
    #[must_use]
    pub fn allows(&self, key: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| at.elapsed() < INTERVAL);
        if logged.contains_key(key) || logged.len() >= CAPACITY {
            return false;
        }
        logged.insert(key.to_owned(), Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_message_is_suppressed() {
        let throttle = LogThrottle::default();
        assert!(throttle.allows("a") && throttle.allows("b"));
        assert!(!throttle.allows("a") && !throttle.clone().allows("b"));
    }

    #[test]
    fn stored_messages_are_bounded() {
        let throttle = LogThrottle::default();
        let logged = (0..1000).filter(|number| throttle.allows(&number.to_string())).count();
        assert_eq!(logged, CAPACITY);
    }
}
