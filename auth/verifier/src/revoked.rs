//! The ids of the tokens that were revoked and would hold without that.

use std::collections::HashMap;

/// Below this many, a set is not worth pruning.
const FEW: usize = 1024;

/// Revoked token ids, each with the time at which its token expires and the id may be forgotten.
#[derive(Debug)]
pub(crate) struct Revoked {
    expiries: HashMap<Box<str>, i64>,
    prune_at: usize,
}

impl Revoked {
    pub(crate) fn new() -> Self {
        Self { expiries: HashMap::new(), prune_at: FEW }
    }

    pub(crate) fn contains(&self, jti: &str) -> bool {
        self.expiries.contains_key(jti)
    }

    /// Adds an id. Forgets the expired ones when the set has doubled since it last did, so that the cost of looking
    /// at all of them is spread over the additions and no check ever pays it.
    pub(crate) fn insert(&mut self, jti: &str, expires_at: i64, now: i64) {
        if expires_at <= now {
            return;
        }
        if self.expiries.len() >= self.prune_at {
            self.expiries.retain(|_, expires_at| *expires_at > now);
            self.prune_at = FEW.max(2 * self.expiries.len());
        }
        self.expiries.insert(jti.into(), expires_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_ids_are_forgotten_as_new_ones_come() {
        let mut revoked = Revoked::new();
        for number in 0..FEW {
            revoked.insert(&format!("old {number}"), 100, 50);
        }
        assert!(revoked.contains("old 7"));
        revoked.insert("new", 300, 200);
        assert_eq!(revoked.expiries.len(), 1);
        assert!(revoked.contains("new") && !revoked.contains("old 7"));
    }

    #[test]
    fn an_id_that_has_expired_is_not_kept() {
        let mut revoked = Revoked::new();
        revoked.insert("gone", 100, 100);
        assert!(!revoked.contains("gone"));
    }
}
