//! The revoked tokens that have not expired.

use crate::{claims::Claims, ttl_map::TtlMap};

/// Revocations of single tokens, of families, and of all tokens of a user.
pub(crate) struct RevocationList {
    /// Ids of tokens and of families.
    ids: TtlMap<()>,
    /// The lowest valid generation by user name.
    users: TtlMap<i64>,
}

impl RevocationList {
    pub(crate) fn new() -> Self {
        Self { ids: TtlMap::new(), users: TtlMap::new() }
    }

    /// Whether a token was revoked in one of the three ways.
    pub(crate) fn contains(&self, claims: &Claims) -> bool {
        let by_id = |id: &str| self.ids.get(id).is_some();
        by_id(&claims.jti)
            || claims.family.as_deref().is_some_and(by_id)
            || self.users.get(&claims.sub).is_some_and(|lowest| claims.generation < lowest)
    }

    pub(crate) fn insert(&self, id: &str, expires_at: i64, now: i64) {
        self.ids.insert(id, (), expires_at, now);
    }

    pub(crate) fn insert_user(&self, username: &str, before_generation: i64, expires_at: i64, now: i64) {
        self.users.insert(username, before_generation, expires_at, now);
    }
}
