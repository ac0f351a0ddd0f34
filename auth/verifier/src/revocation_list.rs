//! What was revoked and would hold without that.

use crate::{claims::Claims, ttl_map::TtlMap};

/// Single tokens, families of tokens, and all that a user had.
pub(crate) struct RevocationList {
    /// Ids of tokens and of families.
    ids: TtlMap<()>,
    /// For a user's name, the lowest generation that still holds.
    users: TtlMap<i64>,
}

impl RevocationList {
    pub(crate) fn new() -> Self {
        Self { ids: TtlMap::new(), users: TtlMap::new() }
    }

    /// Whether a token was revoked by any of the three ways.
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
