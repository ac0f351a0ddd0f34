//! The number of streams that are open, in all and by user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muse_proto::{Error, Reason};

use crate::batcher::User;

/// Streams that a user may have open. The gateway's own bound is lower.
pub(crate) const MAX_USER_STREAMS: usize = 64;
/// Streams that may be open.
pub(crate) const MAX_STREAMS: usize = 1_024;
/// When a caller may try again. Somebody has to end a stream first, which the server does not know of.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Counts open streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_user: HashMap<User, usize>,
}

impl Slots {
    /// Counts one more stream of a user until the slot is dropped.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if there are too many.
    pub(crate) fn open(&self, user: &User) -> Result<Slot, Error> {
        let mut open = self.lock();
        let own = open.by_user.get(user).copied().unwrap_or_default();
        let text = if own >= MAX_USER_STREAMS {
            format!("{own} streams of this user are open; the limit is {MAX_USER_STREAMS} a user")
        } else if open.total >= MAX_STREAMS {
            format!("{} streams are open; the limit is {MAX_STREAMS}", open.total)
        } else {
            open.total += 1;
            open.by_user.insert(Arc::clone(user), own + 1);
            return Ok(Slot { slots: self.clone(), user: Arc::clone(user) });
        };
        Err(Error::new(Reason::Overloaded, text).with_retry_after(RETRY_AFTER))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code that holds it can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one stream.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    user: User,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
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
    fn one_user_s_streams_leave_room_for_others() {
        let slots = Slots::default();
        let mut greedy: Vec<_> =
            (0..MAX_USER_STREAMS).map(|_| slots.open(&User::from("a")).unwrap()).collect();
        let rejected = slots.open(&User::from("a")).unwrap_err();
        assert_eq!(rejected.reason(), Reason::Overloaded);
        assert!(rejected.retry_after().is_some() && rejected.message().contains("the limit is 64 a user"));
        let _other = slots.open(&User::from("b")).unwrap();
        greedy.pop();
        let _next = slots.open(&User::from("a")).unwrap();
        let open = slots.lock();
        assert_eq!((open.total, open.by_user.len()), (MAX_USER_STREAMS + 1, 2));
    }

    #[test]
    fn all_streams_together_are_bounded() {
        let slots = Slots::default();
        let user = |index: usize| User::from((index / MAX_USER_STREAMS).to_string());
        let open: Vec<_> = (0..MAX_STREAMS).map(|index| slots.open(&user(index)).unwrap()).collect();
        assert_eq!(slots.open(&User::from("another")).unwrap_err().reason(), Reason::Overloaded);
        drop(open);
        assert!(slots.open(&User::from("another")).is_ok() && slots.lock().by_user.is_empty());
    }
}
