//! Tokens whose signature was found good.
//!
//! Checking a signature costs tens of microseconds, in the gateway and again in the embedder, and a client sends the
//! same token with each of its calls. What it says about itself can be trusted from the first time on; whether it
//! still holds is looked at each time.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, RwLock},
};

use crate::{
    claims::Claims,
    locks::{read, write},
};

/// Tokens in each of the two generations.
const CAPACITY: usize = 4096;

/// The tokens that were used of late. When the younger generation is full it becomes the older one, and what nobody
/// has asked for since is forgotten: as good as remembering which was used last, and a look-up need not write it down.
pub(crate) struct SignatureCache(RwLock<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Arc<Claims>>,
    old: HashMap<Box<str>, Arc<Claims>>,
}

impl SignatureCache {
    pub(crate) fn new() -> Self {
        Self(RwLock::default())
    }

    pub(crate) fn get(&self, token: &str) -> Option<Arc<Claims>> {
        let generations = read(&self.0);
        if let Some(claims) = generations.young.get(token) {
            return Some(Arc::clone(claims));
        }
        let claims = Arc::clone(generations.old.get(token)?);
        drop(generations);
        self.insert(token, Arc::clone(&claims));
        Some(claims)
    }

    pub(crate) fn insert(&self, token: &str, claims: Arc<Claims>) {
        let mut generations = write(&self.0);
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
    fn what_is_used_stays_and_the_rest_goes() {
        let verified = SignatureCache::new();
        verified.insert("used", claims());
        verified.insert("unused", claims());
        for number in 0..10 * CAPACITY {
            verified.insert(&number.to_string(), claims());
            assert!(verified.get("used").is_some());
        }
        assert!(verified.get("unused").is_none());
        let generations = read(&verified.0);
        assert!(generations.young.len() <= CAPACITY && generations.old.len() <= CAPACITY);
    }
}
