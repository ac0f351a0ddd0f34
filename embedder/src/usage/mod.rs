//! Usage accounting: how many requests, sentences and tokens each user and API key uses, and the
//! enforcement of quotas.
//!
//! The layer ([`UsageLayer`]) checks the quota of a call's caller before the message is read, and
//! counts the call when it is answered; the methods count vectors when they are computed. Counts
//! are pending ([`PendingUsage`]) until the [`UsageReporter`] has delivered them to the auth
//! service, which derives the states of the quotas from them.

mod account;
mod layer;
mod pending;
mod reporter;

pub(crate) use account::UsageAccount;
pub(crate) use layer::UsageLayer;
pub use pending::{PendingUsage, UsageCounts};
pub(crate) use reporter::UsageReporter;
