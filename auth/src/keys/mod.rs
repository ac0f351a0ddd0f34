//! The keys that tokens are signed with, of which one signs at a time.
//!
//! A new key is published [`LEAD_SECONDS`] before it signs, so that every verifier knows it by then. An old one is
//! published until the last token that it signed has expired.

mod pair;
mod watch;

use muse_proto::v1::JsonWebKey;
use secrecy::SecretString;

use crate::{AuthError, store::StoredKey};

pub(crate) use pair::KeyPair;
pub(crate) use watch::{Keys, follow, open};

/// Verifiers hear of a new key within milliseconds; one that is just out of touch has this long to come back.
const LEAD_SECONDS: i64 = 5;

/// The usable keys, in the order in which they sign.
pub(crate) struct Keyring(Vec<Key>);

struct Key {
    pair: KeyPair,
    stored: StoredKey,
    /// When its last token will have expired; `None` as long as no other key has taken its place.
    retires_at: Option<i64>,
}

/// A key as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub kid: String,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// Tokens are signed with it from this time on, until another key does.
    pub active_from: i64,
    /// Whether tokens are signed with it now.
    pub signs: bool,
    /// When its last token will have expired, if another key has taken its place.
    pub retires_at: Option<i64>,
}

impl Keyring {
    /// With a secret those keys that are derived from it, else those that were made at random.
    pub(crate) fn read(rows: &[StoredKey], secret: Option<&SecretString>) -> Result<Self, AuthError> {
        let mut keys: Vec<Key> = Vec::new();
        for row in rows {
            let Some(pair) = usable(row, secret)? else { continue };
            if let Some(before) = keys.last_mut() {
                before.retires_at = Some(row.active_from.saturating_add(before.stored.longest_lifetime));
            }
            keys.push(Key { pair, stored: row.clone(), retires_at: None });
        }
        Ok(Self(keys))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that signs.
    pub(crate) fn signing(&self, now: i64) -> Option<&KeyPair> {
        self.position(now).map(|at| &self.0[at].pair)
    }

    fn position(&self, now: i64) -> Option<usize> {
        // The first one signs however early it is: a clock that was set back must not lock everybody out.
        let active = self.0.iter().rposition(|key| key.stored.active_from <= now);
        active.or_else(|| (!self.is_empty()).then_some(0))
    }

    /// The public keys with which tokens are verified.
    pub(crate) fn published(&self, now: i64) -> Vec<JsonWebKey> {
        self.0.iter().filter(|key| !key.is_retired(now)).map(|key| key.pair.jwk()).collect()
    }

    /// The ids of the keys whose tokens have all expired.
    pub(crate) fn retired(&self, now: i64) -> Vec<&str> {
        self.0.iter().filter(|key| key.is_retired(now)).map(|key| key.pair.kid()).collect()
    }

    /// The ids of the keys for which it is not known yet that tokens hold for so many seconds.
    pub(crate) fn with_shorter_lifetime(&self, seconds: i64) -> Vec<&str> {
        self.0.iter().filter(|key| key.stored.longest_lifetime < seconds).map(|key| key.pair.kid()).collect()
    }

    pub(crate) fn describe(&self, now: i64) -> Vec<KeyInfo> {
        let signing = self.position(now);
        let info = |(at, key): (usize, &Key)| KeyInfo {
            kid: key.pair.kid().to_owned(),
            created_at: key.stored.created_at,
            active_from: key.stored.active_from,
            signs: signing == Some(at),
            retires_at: key.retires_at,
        };
        self.0.iter().enumerate().map(info).collect()
    }
}

impl Key {
    fn is_retired(&self, now: i64) -> bool {
        self.retires_at.is_some_and(|retires_at| retires_at <= now)
    }
}

fn usable(row: &StoredKey, secret: Option<&SecretString>) -> Result<Option<KeyPair>, AuthError> {
    match (row.derivation, secret) {
        (Some(number), Some(secret)) => {
            let pair = KeyPair::derived(secret, number);
            // Else it is of another secret, whose tokens have ended with it.
            Ok((pair.kid() == row.kid).then_some(pair))
        }
        (None, None) => {
            let stored = KeyPair::stored(&row.private_key);
            let pair = stored.filter(|pair| pair.kid() == row.kid);
            pair.map(Some).ok_or_else(|| AuthError::DamagedKey(row.kid.clone()))
        }
        _ => Ok(None),
    }
}

/// The first key, if there is none.
pub(crate) fn first(
    rows: &[StoredKey],
    secret: Option<&SecretString>,
    now: i64,
) -> Result<Option<StoredKey>, AuthError> {
    if Keyring::read(rows, secret)?.is_empty() { make(secret, 0, now, now).map(Some) } else { Ok(None) }
}

/// The key that is to take the place of those that there are.
pub(crate) fn next(
    rows: &[StoredKey],
    secret: Option<&SecretString>,
    now: i64,
) -> Result<Option<StoredKey>, AuthError> {
    let keys = Keyring::read(rows, secret)?;
    let Some(last) = keys.0.last() else {
        return Err(AuthError::KeysOfAnotherSecret {
            derived: rows.iter().any(|row| row.derivation.is_some()),
        });
    };
    // Rows are in order: if the last one of all is not usable, the service runs with another secret than this one.
    if rows.last().is_some_and(|row| row.derivation.is_some() != secret.is_some()) {
        return Err(AuthError::KeysOfAnotherSecret { derived: secret.is_none() });
    }
    let number = last.stored.derivation.map_or(0, |number| number + 1);
    make(secret, number, now, now.max(last.stored.active_from) + LEAD_SECONDS).map(Some)
}

fn make(
    secret: Option<&SecretString>,
    number: i64,
    now: i64,
    active_from: i64,
) -> Result<StoredKey, AuthError> {
    let pair = match secret {
        Some(secret) => KeyPair::derived(secret, number),
        None => KeyPair::random()?,
    };
    Ok(StoredKey {
        kid: pair.kid().to_owned(),
        private_key: if secret.is_some() { Vec::new() } else { pair.seed().to_vec() },
        created_at: now,
        derivation: secret.is_some().then_some(number),
        active_from,
        longest_lifetime: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(rows: &mut Vec<StoredKey>, secret: Option<&SecretString>, now: i64) {
        let made = if rows.is_empty() { first(rows, secret, now) } else { next(rows, secret, now) };
        rows.push(made.unwrap().unwrap());
    }

    fn kids(keys: &[JsonWebKey]) -> Vec<&str> {
        keys.iter().map(|key| key.kid.as_str()).collect()
    }

    #[test]
    fn a_new_key_is_published_before_it_signs_and_an_old_one_until_its_tokens_have_expired() {
        for secret in [None, Some(SecretString::from("a secret of 16 bytes"))] {
            let mut rows = Vec::new();
            rotated(&mut rows, secret.as_ref(), 1000);
            rows[0].longest_lifetime = 100;
            rotated(&mut rows, secret.as_ref(), 2000);
            let (old, new) = (rows[0].kid.clone(), rows[1].kid.clone());
            assert_ne!(old, new);
            let keys = Keyring::read(&rows, secret.as_ref()).unwrap();
            assert_eq!(kids(&keys.published(2000)), [&old, &new]);
            assert_eq!(keys.signing(2000 + LEAD_SECONDS - 1).unwrap().kid(), old);
            assert_eq!(keys.signing(2000 + LEAD_SECONDS).unwrap().kid(), new);
            assert_eq!(kids(&keys.published(2000 + LEAD_SECONDS + 99)), [&old, &new]);
            assert_eq!(kids(&keys.published(2000 + LEAD_SECONDS + 100)), [&new]);
            assert_eq!(keys.retired(2000 + LEAD_SECONDS + 100), [&old]);
            assert_eq!(keys.signing(0).unwrap().kid(), old, "a clock set back");
            assert_eq!(rows.iter().all(|row| row.private_key.is_empty()), secret.is_some());
        }
    }

    #[test]
    fn keys_of_another_secret_are_no_keys() {
        let (one, other) = (SecretString::from("one"), SecretString::from("other"));
        let mut rows = Vec::new();
        rotated(&mut rows, Some(&one), 0);
        assert!(Keyring::read(&rows, Some(&other)).unwrap().is_empty());
        assert!(Keyring::read(&rows, None).unwrap().is_empty());
        assert!(next(&rows, Some(&other), 0).is_err());
        assert!(next(&rows, None, 0).is_err());
        assert!(first(&rows, None, 0).unwrap().is_some());
        assert!(first(&rows, Some(&one), 0).unwrap().is_none());
    }

    #[test]
    fn a_damaged_key_is_named() {
        let mut rows = Vec::new();
        rotated(&mut rows, None, 0);
        rows[0].private_key[7] ^= 1;
        let Err(damaged) = Keyring::read(&rows, None) else { panic!("it is damaged") };
        assert!(damaged.to_string().contains(&rows[0].kid));
    }
}
