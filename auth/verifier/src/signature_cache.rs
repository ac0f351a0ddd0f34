//! Cache of verified signatures.
//!
//! Verifying a signature takes tens of microseconds, in the gateway and again in the embedder, and
//! a client sends the same token with each call. Only the signature is cached: times and
//! revocations are checked at each use.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::RwLock;

use crate::claims::Claims;

/// Tokens in each of the two generations.
const CAPACITY: usize = 4096;

/// Claims by verified token, in two generations: a full young one replaces the old one, and tokens
/// that are used move back to the young one. This approximates LRU, and a hit takes only a read
/// lock.
///
/// Not the crate `quick_cache` or `moka`: they would replace thirty lines.
#[derive(Default)]
pub(crate) struct SignatureCache(RwLock<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Arc<Claims>>,
    old: HashMap<Box<str>, Arc<Claims>>,
}

impl SignatureCache {
    pub(crate) fn get(&self, token: &str) -> Option<Arc<Claims>> {
        let generations = self.0.read();
        if let Some(claims) = generations.young.get(token) {
            return Some(Arc::clone(claims));
        }
        let claims = Arc::clone(generations.old.get(token)?);
        drop(generations);
        self.insert(token, Arc::clone(&claims));
        Some(claims)
    }

    pub(crate) fn insert(&self, token: &str, claims: Arc<Claims>) {
        let mut generations = self.0.write();
        if generations.young.len() >= CAPACITY {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(token.into(), claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenKind;

    fn claims() -> Arc<Claims> {
        Arc::new(Claims {
            fresh: false,
            iat: 0,
            jti: "j".to_owned(),
            kind: TokenKind::Access,
            sub: "s".to_owned(),
            nbf: 0,
            exp: 1,
            generation: 0,
            family: None,
            admin: false,
        })
    }

    #[test]
    fn unused_tokens_are_evicted_and_used_ones_are_not() {
        let cache = SignatureCache::default();
        cache.insert("used", claims());
        cache.insert("unused", claims());
        for number in 0..10 * CAPACITY {
            cache.insert(&number.to_string(), claims());
            assert!(cache.get("used").is_some());
        }
        assert!(cache.get("unused").is_none());
        let generations = cache.0.read();
        assert!(generations.young.len() <= CAPACITY && generations.old.len() <= CAPACITY);
    }
}
