//! Makes tokens.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use muse_verifier::{Claims, TokenKind, install_crypto_provider};

use crate::{clock, config::Config, keys::KeyPair};

/// Why a token could not be made: a fault of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("cannot sign: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs tokens.
pub(crate) struct Signer {
    header: Header,
    key: EncodingKey,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_lifetime: Duration,
}

impl Signer {
    pub(crate) fn new(keys: &KeyPair, config: &Config) -> Self {
        install_crypto_provider();
        Self {
            header: Header { kid: Some(keys.kid().to_owned()), ..Header::new(Algorithm::EdDSA) },
            key: EncodingKey::from_ed_der(keys.seed()),
            access_lifetime: config.access_token_lifetime,
            refresh_lifetime: config.refresh_token_lifetime,
        }
    }

    /// A new token. `fresh` says that the user has just shown the password.
    pub(crate) fn sign(&self, user: &str, kind: TokenKind, fresh: bool) -> Result<String, SignError> {
        let lifetime = match kind {
            TokenKind::Access => self.access_lifetime,
            TokenKind::Refresh => self.refresh_lifetime,
        };
        let now = clock::now();
        let claims = Claims {
            fresh,
            iat: now,
            jti: new_id()?,
            kind,
            sub: user.to_owned(),
            nbf: now,
            exp: now.saturating_add_unsigned(lifetime.as_secs()),
        };
        Ok(encode(&self.header, &claims, &self.key)?)
    }
}

/// A random UUID (version 4), as the old service's ids were.
fn new_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let bits = (u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_uuid() {
        let id = new_id().unwrap();
        let groups: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, new_id().unwrap());
    }
}
