//! The flows of the fair queue: users, their service classes, and classes of requests.

use std::sync::Arc;

use http::Extensions;
use muse_proto::{Error, Reason};
use muse_verifier::Principal;

/// Tokens that the turn of a user is worth.
pub(super) const QUANTUM: usize = 256;
/// Of these, the tokens of the user's bulk requests while others of the user wait.
const BULK_QUANTUM: usize = QUANTUM / 8;

/// The name of the user who sent a request.
pub type UserName = Arc<str>;

/// How a user's request shares the service with others of the same user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceClass {
    /// The requests with a token, or with a key that is not a bulk key.
    Interactive,
    /// Those with a bulk key: they get an eighth of the user's share while interactive requests of
    /// the user wait, and all of it otherwise.
    Bulk,
}

impl ServiceClass {
    /// Tokens that a turn in the share of a user is worth, and that of a class of requests in it.
    pub(super) fn quantum(self) -> usize {
        match self {
            Self::Interactive => QUANTUM - BULK_QUANTUM,
            Self::Bulk => BULK_QUANTUM,
        }
    }

    /// The other class.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Interactive => Self::Bulk,
            Self::Bulk => Self::Interactive,
        }
    }

    /// Tokens that the other class of the user gets, at most, while this one gets `tokens`.
    pub(super) fn tokens_of_other(self, tokens: usize) -> usize {
        (tokens * self.other().quantum()).div_ceil(self.quantum())
    }
}

/// Whose a request is: the user, and the service class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowKey {
    /// The user, or the owner of the API key.
    pub user: UserName,
    /// Whether it has a bulk key.
    pub service_class: ServiceClass,
}

impl From<&Principal> for FlowKey {
    fn from(principal: &Principal) -> Self {
        let service_class = if principal.is_bulk() { ServiceClass::Bulk } else { ServiceClass::Interactive };
        Self { user: UserName::from(principal.user()), service_class }
    }
}

impl FlowKey {
    /// The flow of a call, which its authentication has added to the extensions.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`] if there is none: such a call would share the queue of no user.
    pub(crate) fn of(extensions: &Extensions) -> Result<Self, Error> {
        extensions.get().cloned().ok_or_else(|| Error::new(Reason::Internal, "the call has no flow"))
    }
}

/// The size class of a request. Requests of one flow and class wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SizeClass {
    /// Calls with about 4^n to 4^(n+1) - 1 tokens.
    Size(u32),
    /// Items of streams.
    Stream,
}

impl SizeClass {
    /// The size class of a call with about so many tokens.
    pub(super) fn of_call(tokens: usize) -> Self {
        Self::Size(tokens.max(1).ilog2() / 2)
    }

    /// Whether its calls have fewer tokens than the turn of a user is worth, by their estimates.
    pub(super) fn is_small(self) -> bool {
        matches!(self, Self::Size(size) if size < QUANTUM.ilog2() / 2)
    }
}

#[cfg(test)]
mod tests {
    use muse_verifier::api_keys::{KeyId, VerifiedKey};

    use super::*;

    #[test]
    fn call_without_a_flow_belongs_to_no_user() {
        let mut extensions = Extensions::new();
        extensions.insert(UserName::from("ann"));
        assert_eq!(FlowKey::of(&extensions).unwrap_err().reason(), Reason::Internal);
        let key = VerifiedKey { id: KeyId::new(1), owner: "ann".into(), bulk: true };
        let flow = FlowKey::from(&Principal::Key(key));
        assert_eq!((&*flow.user, flow.service_class), ("ann", ServiceClass::Bulk));
        extensions.insert(flow.clone());
        assert_eq!(FlowKey::of(&extensions).unwrap(), flow);
    }
}
