//! Limits the number of open streams, in total and per user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muse_proto::{Error, Reason};

use crate::batcher::UserName;

/// Streams that a user may have open. The limit of the gateway is lower by default.
pub(crate) const MAX_USER_STREAMS: usize = 64;
/// Streams that may be open.
pub(crate) const MAX_STREAMS: usize = 1_024;
/// When a caller may try again. The server cannot predict when a stream ends.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Counts open streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamLimit(Arc<Mutex<OpenStreams>>);

#[derive(Debug, Default)]
struct OpenStreams {
    total: usize,
    by_user: HashMap<UserName, usize>,
}

impl StreamLimit {
    /// Counts a stream of a user until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if there are too many.
    pub(crate) fn acquire(&self, user: &UserName) -> Result<StreamPermit, Error> {
        let mut open = self.lock();
        let own = open.by_user.get(user).copied().unwrap_or_default();
        let text = if own >= MAX_USER_STREAMS {
            format!("{own} streams of this user are open; the limit is {MAX_USER_STREAMS} a user")
        } else if open.total >= MAX_STREAMS {
            format!("{} streams are open; the limit is {MAX_STREAMS}", open.total)
        } else {
            open.total += 1;
            open.by_user.insert(Arc::clone(user), own + 1);
            return Ok(StreamPermit { limit: self.clone(), user: Arc::clone(user) });
        };
        Err(Error::new(Reason::Overloaded, text).with_retry_after(RETRY_AFTER))
    }

    fn lock(&self) -> MutexGuard<'_, OpenStreams> {
        // No code that holds it can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permits one open stream.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    limit: StreamLimit,
    user: UserName,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limit.lock();
        open.total -= 1;
        if let Some(own) = open.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_user_leave_room_for_others() {
        let limit = StreamLimit::default();
        let mut greedy: Vec<_> =
            (0..MAX_USER_STREAMS).map(|_| limit.acquire(&UserName::from("a")).unwrap()).collect();
        let rejected = limit.acquire(&UserName::from("a")).unwrap_err();
        assert_eq!(rejected.reason(), Reason::Overloaded);
        assert!(rejected.retry_after().is_some() && rejected.message().contains("the limit is 64 a user"));
        let _other = limit.acquire(&UserName::from("b")).unwrap();
        greedy.pop();
        let _next = limit.acquire(&UserName::from("a")).unwrap();
        let open = limit.lock();
        assert_eq!((open.total, open.by_user.len()), (MAX_USER_STREAMS + 1, 2));
    }

    #[test]
    fn all_streams_together_are_bounded() {
        let limit = StreamLimit::default();
        let user = |index: usize| UserName::from((index / MAX_USER_STREAMS).to_string());
        let open: Vec<_> = (0..MAX_STREAMS).map(|index| limit.acquire(&user(index)).unwrap()).collect();
        assert_eq!(limit.acquire(&UserName::from("another")).unwrap_err().reason(), Reason::Overloaded);
        drop(open);
        assert!(limit.acquire(&UserName::from("another")).is_ok() && limit.lock().by_user.is_empty());
    }
}
