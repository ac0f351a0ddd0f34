//! The account of a call's caller.

use std::time::Duration;

use http::Extensions;
use muse_proto::{Error, Reason, v1::Embedding};
use muse_verifier::{Principal, Verifier, api_keys::KeyId};

use super::pending::{PendingUsage, UsageCounts};
use crate::{activity::Activity, batcher::UserName};

/// Whom a call counts for, and whose quota limits it.
#[derive(Debug, Clone)]
pub(crate) struct UsageAccount {
    pending: PendingUsage,
    activity: Activity,
    verifier: Verifier,
    principal: Principal,
    user: UserName,
}

impl UsageAccount {
    /// The account of an authenticated caller.
    pub(super) fn new(
        pending: PendingUsage,
        activity: Activity,
        verifier: Verifier,
        principal: Principal,
        user: UserName,
    ) -> Self {
        Self { pending, activity, verifier, principal, user }
    }

    /// The account of a call, which the [layer](super::layer) has added to its extensions.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`] if there is none: such a call would not be counted.
    pub(crate) fn of(extensions: &Extensions) -> Result<Self, Error> {
        extensions.get().cloned().ok_or_else(|| Error::new(Reason::Internal, "the call has no account"))
    }

    /// Checks that no quota of the caller is exhausted.
    ///
    /// # Errors
    ///
    /// [`Reason::QuotaExhausted`].
    pub(crate) fn check_quota(&self) -> Result<(), Error> {
        self.verifier.check_quota(&self.principal)
    }

    /// Counts vectors that were computed.
    pub(crate) fn record_vectors(&self, embeddings: &[Embedding]) {
        let tokens = embeddings.iter().map(|embedding| u64::from(embedding.token_count)).sum();
        self.add(UsageCounts { sentences: embeddings.len() as u64, tokens, ..UsageCounts::default() });
    }

    /// Counts an answered call.
    pub(super) fn record_request(&self) {
        self.add(UsageCounts { requests: 1, ..UsageCounts::default() });
    }

    /// Adds the duration of an answered call of Embed to the activity of the embedder.
    pub(super) fn record_duration(&self, took: Duration) {
        self.activity.add_duration(took);
    }

    /// Counts a call that was rejected because of a quota, of load, or of a limit of memory.
    pub(crate) fn record_refusal(&self) {
        self.add(UsageCounts { refused: 1, ..UsageCounts::default() });
    }

    fn add(&self, counts: UsageCounts) {
        self.pending.add(&self.user, self.key(), counts);
        self.activity.add(counts);
    }

    fn key(&self) -> Option<KeyId> {
        match &self.principal {
            Principal::Key(key) => Some(key.id),
            Principal::Token(_) => None,
        }
    }
}
