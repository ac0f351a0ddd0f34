//! The signing keys, of which one signs at a time.
//!
//! A new key is published [`LEAD_SECONDS`] before it signs, so that all verifiers have it by then.
//! An old one is published until the last token that it signed has expired.

mod pair;
mod watch;

use muse_proto::v1::JsonWebKey;
use secrecy::SecretString;

use crate::{AuthError, store::StoredKey};

pub(crate) use pair::KeyPair;
pub(crate) use watch::{KeyringReceiver, follow, open};

/// Seconds from the publication of a key until it signs. Verifiers receive it within milliseconds;
/// a disconnected one has this long to reconnect.
const LEAD_SECONDS: i64 = 5;

/// The keys that belong to the configured secret (or to none), in the order in which they sign.
pub(crate) struct Keyring(Vec<KeyringEntry>);

struct KeyringEntry {
    pair: KeyPair,
    stored: StoredKey,
    /// When its last token has expired; `None` until another key replaces it.
    retires_at: Option<i64>,
}

/// A signing key, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The id of the key.
    pub kid: String,
    /// Unix time of the creation, in seconds.
    pub created_at: i64,
    /// The key signs tokens from this time on, until another key does.
    pub active_from: i64,
    /// Whether it is the signing key now.
    pub signs: bool,
    /// When its last token has expired, if another key has replaced it.
    pub retires_at: Option<i64>,
}

impl Keyring {
    /// The keys among `rows` that are derived from `secret`, or without a secret the random ones.
    pub(crate) fn read(rows: &[StoredKey], secret: Option<&SecretString>) -> Result<Self, AuthError> {
        let mut keys: Vec<KeyringEntry> = Vec::new();
        for row in rows {
            let Some(pair) = key_pair(row, secret)? else { continue };
            if let Some(previous) = keys.last_mut() {
                previous.retires_at = Some(row.active_from.saturating_add(previous.stored.longest_lifetime));
            }
            keys.push(KeyringEntry { pair, stored: row.clone(), retires_at: None });
        }
        Ok(Self(keys))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The signing key.
    pub(crate) fn signing(&self, now: i64) -> Option<&KeyPair> {
        self.signing_position(now).map(|at| &self.0[at].pair)
    }

    fn signing_position(&self, now: i64) -> Option<usize> {
        // The first key signs even before its time, so that a clock that is set back locks nobody
        // out.
        let active = self.0.iter().rposition(|key| key.stored.active_from <= now);
        active.or_else(|| (!self.is_empty()).then_some(0))
    }

    /// The public keys for verification.
    pub(crate) fn published(&self, now: i64) -> Vec<JsonWebKey> {
        self.0.iter().filter(|key| !key.is_retired(now)).map(|key| key.pair.jwk()).collect()
    }

    /// The ids of the keys whose tokens have all expired.
    pub(crate) fn retired(&self, now: i64) -> Vec<&str> {
        self.0.iter().filter(|key| key.is_retired(now)).map(|key| key.pair.kid()).collect()
    }

    /// The ids of the keys whose recorded longest lifetime of a token is shorter.
    pub(crate) fn below_lifetime(&self, seconds: i64) -> Vec<&str> {
        self.0.iter().filter(|key| key.stored.longest_lifetime < seconds).map(|key| key.pair.kid()).collect()
    }

    pub(crate) fn describe(&self, now: i64) -> Vec<KeyInfo> {
        let signing = self.signing_position(now);
        let info = |(at, key): (usize, &KeyringEntry)| KeyInfo {
            kid: key.pair.kid().to_owned(),
            created_at: key.stored.created_at,
            active_from: key.stored.active_from,
            signs: signing == Some(at),
            retires_at: key.retires_at,
        };
        self.0.iter().enumerate().map(info).collect()
    }
}

impl KeyringEntry {
    fn is_retired(&self, now: i64) -> bool {
        self.retires_at.is_some_and(|retires_at| retires_at <= now)
    }
}

fn key_pair(row: &StoredKey, secret: Option<&SecretString>) -> Result<Option<KeyPair>, AuthError> {
    match (row.derivation, secret) {
        (Some(number), Some(secret)) => {
            let pair = KeyPair::derived(secret, number);
            // Otherwise the key belongs to another secret, whose tokens are not valid any more.
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

/// The first key, if the keyring is empty.
pub(crate) fn first_key(
    rows: &[StoredKey],
    secret: Option<&SecretString>,
    now: i64,
) -> Result<Option<StoredKey>, AuthError> {
    if Keyring::read(rows, secret)?.is_empty() { create(secret, 0, now, now).map(Some) } else { Ok(None) }
}

/// The key that replaces the existing ones.
pub(crate) fn next_key(
    rows: &[StoredKey],
    secret: Option<&SecretString>,
    now: i64,
) -> Result<Option<StoredKey>, AuthError> {
    let keys = Keyring::read(rows, secret)?;
    let Some(last) = keys.0.last() else {
        return Err(AuthError::SecretMismatch { derived: rows.iter().any(|row| row.derivation.is_some()) });
    };
    // If the last row of all is of the other kind, the service runs with another secret.
    if rows.last().is_some_and(|row| row.derivation.is_some() != secret.is_some()) {
        return Err(AuthError::SecretMismatch { derived: secret.is_none() });
    }
    let number = last.stored.derivation.map_or(0, |number| number + 1);
    create(secret, number, now, now.max(last.stored.active_from) + LEAD_SECONDS).map(Some)
}

fn create(
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

    fn rotate(rows: &mut Vec<StoredKey>, secret: Option<&SecretString>, now: i64) {
        let created =
            if rows.is_empty() { first_key(rows, secret, now) } else { next_key(rows, secret, now) };
        rows.push(created.unwrap().unwrap());
    }

    fn kids(keys: &[JsonWebKey]) -> Vec<&str> {
        keys.iter().map(|key| key.kid.as_str()).collect()
    }

    #[test]
    fn keys_are_published_before_and_after_they_sign() {
        for secret in [None, Some(SecretString::from("a secret of 16 bytes"))] {
            let mut rows = Vec::new();
            rotate(&mut rows, secret.as_ref(), 1000);
            rows[0].longest_lifetime = 100;
            rotate(&mut rows, secret.as_ref(), 2000);
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
    fn keys_of_another_secret_are_ignored() {
        let (one, other) = (SecretString::from("one"), SecretString::from("other"));
        let mut rows = Vec::new();
        rotate(&mut rows, Some(&one), 0);
        assert!(Keyring::read(&rows, Some(&other)).unwrap().is_empty());
        assert!(Keyring::read(&rows, None).unwrap().is_empty());
        assert!(next_key(&rows, Some(&other), 0).is_err());
        assert!(next_key(&rows, None, 0).is_err());
        assert!(first_key(&rows, None, 0).unwrap().is_some());
        assert!(first_key(&rows, Some(&one), 0).unwrap().is_none());
    }

    #[test]
    fn damaged_key_is_named_in_the_error() {
        let mut rows = Vec::new();
        rotate(&mut rows, None, 0);
        rows[0].private_key[7] ^= 1;
        let Err(damaged) = Keyring::read(&rows, None) else { panic!("it is damaged") };
        assert!(damaged.to_string().contains(&rows[0].kid));
    }
}
