//! What would be said over and over is said now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long the same is not said again.
const PAUSE: Duration = Duration::from_secs(30);
/// How much is remembered to have been said.
const MOST: usize = 64;

/// What was said lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Seldom(Arc<Mutex<HashMap<String, Instant>>>);

impl Seldom {
    /// Whether `text` is to be said: it was not for a while.
    pub(super) fn is_news(&self, text: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| at.elapsed() < PAUSE);
        if said.contains_key(text) || said.len() >= MOST {
            return false;
        }
        said.insert(text.to_owned(), Instant::now());
        true
    }
}
