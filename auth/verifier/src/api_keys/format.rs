//! The format of API keys: `muse_<id>_<secret><checksum>`.
//!
//! The id has 12 characters (60 bits), the secret 32 (160 bits), and the checksum 7: the CRC-32 of
//! everything before it. All of them are base32 (RFC 4648) in lower case, so a secret scanner finds
//! keys with `muse_[a-z2-7]{12}_[a-z2-7]{39}`, and a double click selects a whole key. The checksum
//! tells a typing error from a key that was revoked, without a look-up.

use std::{fmt, str::FromStr};

use muse_proto::{Error, Reason};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The beginning of every API key. No token begins with it.
pub const KEY_PREFIX: &str = "muse_";
/// Random bytes in a secret.
pub const SECRET_BYTES: usize = 20;

const ID_CHARACTERS: usize = 12;
const SECRET_CHARACTERS: usize = SECRET_BYTES * 8 / 5;
const CHECKSUM_CHARACTERS: usize = 7;
/// Where the secret begins.
const SECRET_AT: usize = KEY_PREFIX.len() + ID_CHARACTERS + 1;
const CHECKSUM_AT: usize = SECRET_AT + SECRET_CHARACTERS;
const LENGTH: usize = CHECKSUM_AT + CHECKSUM_CHARACTERS;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Whether a credential is an API key, or an attempt at one. It may be invalid.
#[must_use]
pub fn is_api_key(credential: &str) -> bool {
    credential.starts_with(KEY_PREFIX)
}

/// The permanent id of an API key: a number of 60 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// The id of a number, of which the highest four bits are ignored.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number & (u64::MAX >> 4))
    }

    /// The id as a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(self.0, ID_CHARACTERS))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidKeyId;

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        if text.len() == ID_CHARACTERS {
            decode(text.as_bytes()).map(Self).ok_or(InvalidKeyId)
        } else {
            Err(InvalidKeyId)
        }
    }
}

/// An API key whose form and checksum are right. It has the digest of the secret, not the secret.
#[derive(Clone)]
pub struct ParsedKey {
    /// The id.
    pub id: KeyId,
    digest: [u8; 32],
}

impl ParsedKey {
    /// Parses a key.
    ///
    /// # Errors
    ///
    /// [`Reason::KeyMalformed`], with a text that does not quote the key.
    pub fn parse(key: &str) -> Result<Self, Error> {
        let malformed = || {
            let text = "The API key is malformed: its checksum is wrong. Was it copied completely?";
            Error::new(Reason::KeyMalformed, text)
        };
        let bytes = key.as_bytes();
        if bytes.len() != LENGTH || !is_api_key(key) || bytes[SECRET_AT - 1] != b'_' {
            return Err(malformed());
        }
        let (body, checksum) = bytes.split_at(CHECKSUM_AT);
        let secret = &body[SECRET_AT..];
        if decode(checksum) != Some(u64::from(crc32fast::hash(body)))
            || !secret.iter().all(|byte| ALPHABET.contains(byte))
        {
            return Err(malformed());
        }
        let id = decode(&body[KEY_PREFIX.len()..SECRET_AT - 1]).ok_or_else(malformed)?;
        Ok(Self { id: KeyId(id), digest: digest(secret) })
    }

    /// Compares the digest of the secret with another one, in constant time.
    #[must_use]
    pub fn matches(&self, digest: &[u8]) -> bool {
        self.digest.ct_eq(digest).into()
    }
}

impl fmt::Debug for ParsedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The text of a key with this id and secret, and the SHA-256 of the secret as it is in the text.
#[must_use]
pub fn compose(id: KeyId, secret: &[u8; SECRET_BYTES]) -> (String, [u8; 32]) {
    let secret: String = secret
        .chunks(5)
        .map(|chunk| encode(chunk.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte)), 8))
        .collect();
    let digest = digest(secret.as_bytes());
    let mut key = format!("{KEY_PREFIX}{id}_{secret}");
    let checksum = crc32fast::hash(key.as_bytes());
    key.push_str(&encode(u64::from(checksum), CHECKSUM_CHARACTERS));
    (key, digest)
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The lowest bits of a number in base32, the highest first.
fn encode(number: u64, characters: usize) -> String {
    let digit = |at: usize| char::from(ALPHABET[(number >> (5 * at)) as usize % ALPHABET.len()]);
    (0..characters).rev().map(digit).collect()
}

fn decode(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        Some(number << 5 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> (String, [u8; 32]) {
        compose(KeyId::new(0x0123_4567_89ab_cdef), &std::array::from_fn(|at| at as u8 * 13))
    }

    #[test]
    fn composed_key_is_parsed() {
        let (text, digest) = key();
        assert_eq!(text.len(), LENGTH);
        let parsed = ParsedKey::parse(&text).unwrap();
        assert_eq!(parsed.id, KeyId::new(0x0123_4567_89ab_cdef));
        assert!(parsed.matches(&digest));
        assert!(!parsed.matches(&[0; 32]) && !parsed.matches(&[]));
        assert_eq!(parsed.id.to_string().parse(), Ok(parsed.id));
        let by_hand: [u8; 32] = Sha256::digest(&text[SECRET_AT..CHECKSUM_AT]).into();
        assert_eq!(digest, by_hand);
    }

    #[test]
    fn any_typing_error_is_malformed() {
        let (text, _) = key();
        for at in 0..text.len() {
            for replacement in *b"am7A_ " {
                let mut typo = text.clone().into_bytes();
                if std::mem::replace(&mut typo[at], replacement) == replacement {
                    continue;
                }
                let typo = String::from_utf8(typo).unwrap();
                let error = ParsedKey::parse(&typo).unwrap_err();
                assert_eq!(error.reason(), Reason::KeyMalformed, "{typo}");
                assert!(!error.message().contains(&typo[5..17]));
            }
            let mut swapped = text.clone().into_bytes();
            swapped.swap(at, (at + 1) % text.len());
            let swapped = String::from_utf8(swapped).unwrap();
            assert!(swapped == text || ParsedKey::parse(&swapped).is_err(), "{swapped}");
            assert!(ParsedKey::parse(&text[..at]).is_err());
        }
        assert!(ParsedKey::parse(&format!("{text}a")).is_err());
        assert!(ParsedKey::parse(&text.to_uppercase()).is_err());
    }

    #[test]
    fn debug_output_has_no_secret() {
        let (text, _) = key();
        let output = format!("{:?}", ParsedKey::parse(&text).unwrap());
        assert_eq!(output, format!("ParsedKey {{ id: {}, .. }}", &text[5..17]));
    }

    #[test]
    fn invalid_ids_are_rejected() {
        for invalid in ["", "a", "aaaaaaaaaaaaa", "aaaaaaaaaaa1", "AAAAAAAAAAAA", "äaaaaaaaaaa"] {
            assert_eq!(invalid.parse::<KeyId>(), Err(InvalidKeyId), "{invalid}");
        }
    }
}
