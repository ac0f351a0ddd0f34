//! The quotas of users and API keys in a verifier: how much of them is used, as the auth service
//! last reported.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat};
use muse_proto::{Error, Reason, v1::QuotaState};
use parking_lot::RwLock;

use crate::{api_keys::KeyId, credential::Principal};

/// Whose quota it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaScope {
    /// The quota of a user, for all calls of the user.
    User,
    /// The quota of an API key.
    Key,
}

/// How much of a quota is left, as of the last reports of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whose quota it is.
    pub scope: QuotaScope,
    /// Tokens per period.
    pub limit: u64,
    /// Tokens that are left; 0 if the quota is exhausted.
    pub remaining: u64,
    /// Time until the period ends; zero if it has ended, and nothing was used since.
    pub resets_in: Duration,
    /// When the period ends, in seconds since 1970.
    resets_at: i64,
}

impl QuotaStatus {
    /// Checks that the quota is not exhausted.
    ///
    /// # Errors
    ///
    /// [`Reason::QuotaExhausted`], with the time until the period ends as the wait before a retry.
    pub fn check(&self) -> Result<(), Error> {
        if self.remaining > 0 {
            return Ok(());
        }
        let (whose, who) = match self.scope {
            QuotaScope::User => ("the user", "an admin"),
            QuotaScope::Key => ("the API key", "the owner of the key or an admin"),
        };
        let end = DateTime::from_timestamp(self.resets_at, 0).unwrap_or(DateTime::UNIX_EPOCH);
        let text = format!(
            "The quota of {whose}, {} tokens, is exhausted until {}; {who} can raise it",
            self.limit,
            end.to_rfc3339_opts(SecondsFormat::Secs, true),
        );
        Err(Error::new(Reason::QuotaExhausted, text).with_retry_after(self.resets_in))
    }
}

/// The quotas that a verifier knows.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    table: RwLock<QuotaTable>,
    /// Whether there are any: most services have none, and need no lock to find that.
    any: AtomicBool,
}

impl Quotas {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Applies changed states.
    pub(crate) fn apply(&self, states: &[QuotaState]) {
        if states.is_empty() {
            return;
        }
        let mut table = self.table.write();
        states.iter().for_each(|state| table.apply(state));
        self.any.store(!table.is_empty(), Ordering::Release);
    }

    /// Replaces all quotas.
    pub(crate) fn replace(&self, new: QuotaTable) {
        let mut table = self.table.write();
        self.any.store(!new.is_empty(), Ordering::Release);
        let old = std::mem::replace(&mut *table, new);
        drop(table);
        drop(old);
    }

    /// The quota of a caller at the time `now`; of several the one of which the least is left, and
    /// of these the one that is reset last.
    pub(crate) fn of(&self, principal: &Principal, now: i64) -> Option<QuotaStatus> {
        let table = self.table.read();
        let user = table.users.get(principal.user()).map(|quota| quota.status(QuotaScope::User, now));
        let key = match principal {
            Principal::Key(key) => table.keys.get(&key.id).map(|quota| quota.status(QuotaScope::Key, now)),
            Principal::Token(_) => None,
        };
        drop(table);
        user.into_iter()
            .chain(key)
            .min_by_key(|status| (status.remaining, std::cmp::Reverse(status.resets_at)))
    }
}

/// Quotas by user and by API key.
#[derive(Debug, Default)]
pub(crate) struct QuotaTable {
    users: HashMap<Box<str>, QuotaUse>,
    keys: HashMap<KeyId, QuotaUse>,
}

#[derive(Debug, Clone, Copy)]
struct QuotaUse {
    limit: u64,
    used: u64,
    resets_at: i64,
}

impl QuotaTable {
    /// Adds, changes or removes a quota.
    pub(crate) fn apply(&mut self, state: &QuotaState) {
        let &QuotaState { limit, used, resets_at, key_id, .. } = state;
        let quota = QuotaUse { limit, used, resets_at };
        match (key_id.map(KeyId::new), limit) {
            (Some(key), 0) => drop(self.keys.remove(&key)),
            (Some(key), _) => drop(self.keys.insert(key, quota)),
            (None, 0) => drop(self.users.remove(&*state.username)),
            (None, _) => match self.users.get_mut(&*state.username) {
                Some(present) => *present = quota,
                None => drop(self.users.insert(state.username.as_str().into(), quota)),
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.keys.is_empty()
    }
}

impl QuotaUse {
    fn status(self, scope: QuotaScope, now: i64) -> QuotaStatus {
        let Self { limit, used, resets_at } = self;
        let left = u64::try_from(resets_at.saturating_sub(now)).unwrap_or_default();
        // Within a new period nothing is used until the auth service reports that.
        let remaining = if left == 0 { limit } else { limit.saturating_sub(used) };
        QuotaStatus { scope, limit, remaining, resets_in: Duration::from_secs(left), resets_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_keys::VerifiedKey;

    fn key(id: u64, owner: &str) -> Principal {
        Principal::Key(VerifiedKey { id: KeyId::new(id), owner: owner.into(), bulk: false })
    }

    fn state(username: &str, key_id: Option<u64>, limit: u64, used: u64) -> QuotaState {
        QuotaState { username: username.to_owned(), key_id, limit, used, resets_at: 100 }
    }

    #[test]
    fn least_remaining_quota_of_key_and_owner_applies() {
        let quotas = Quotas::default();
        let found = |principal, now| {
            quotas.of(&principal, now).map(|found| (found.scope, found.remaining, found.resets_in.as_secs()))
        };
        assert_eq!(found(key(1, "ann"), 0), None);
        quotas.apply(&[state("ann", None, 10, 3), state("ann", Some(1), 20, 15)]);
        assert_eq!(found(key(1, "ann"), 40), Some((QuotaScope::Key, 5, 60)));
        assert_eq!(found(key(2, "ann"), 40), Some((QuotaScope::User, 7, 60)));
        assert_eq!(found(key(2, "bob"), 40), None);
        quotas.apply(&[state("ann", Some(1), 0, 0)]);
        assert_eq!(found(key(1, "ann"), 40), Some((QuotaScope::User, 7, 60)));
        quotas.apply(&[state("ann", None, 0, 0)]);
        assert!(!quotas.any());
    }

    #[test]
    fn exhausted_quota_is_unused_after_its_reset() {
        let quotas = Quotas::default();
        quotas.apply(&[state("ann", None, 10, 11)]);
        let at = |now| quotas.of(&key(1, "ann"), now).unwrap();
        let error = at(99).check().unwrap_err();
        assert_eq!(
            (error.reason(), error.retry_after()),
            (Reason::QuotaExhausted, Some(Duration::from_secs(1)))
        );
        let text = "The quota of the user, 10 tokens, is exhausted until 1970-01-01T00:01:40Z; an admin can \
                    raise it";
        assert_eq!(error.message(), text);
        assert_eq!((at(100).remaining, at(100).resets_in, at(100).check()), (10, Duration::ZERO, Ok(())));
    }

    #[test]
    fn later_reset_of_two_exhausted_quotas_applies() {
        let quotas = Quotas::default();
        quotas.apply(&[
            state("ann", None, 10, 10),
            QuotaState { resets_at: 900, ..state("ann", Some(1), 5, 9) },
        ]);
        assert_eq!(quotas.of(&key(1, "ann"), 0).unwrap().scope, QuotaScope::Key);
    }

    #[test]
    fn replaced_table_forgets_other_quotas() {
        let quotas = Quotas::default();
        quotas.apply(&[state("ann", None, 10, 10)]);
        let mut table = QuotaTable::default();
        table.apply(&state("bob", None, 5, 1));
        quotas.replace(table);
        assert_eq!(quotas.of(&key(1, "ann"), 0), None);
        assert_eq!(quotas.of(&key(1, "bob"), 0).unwrap().remaining, 4);
        quotas.replace(QuotaTable::default());
        assert!(!quotas.any());
    }
}
