//! Makes tokens.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use muse_verifier::{Claims, TokenKind, install_crypto_provider};

use crate::{clock, config::Config, ids, keys::Keys, store::UserRow, users::Role};

/// Why a token could not be made: a fault of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("cannot sign: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("there is no key to sign with")]
    NoKey,
}

/// Whom a token is for, and how they came by it.
#[derive(Debug, Clone)]
pub(crate) struct Grant<'a> {
    pub(crate) user: &'a str,
    /// Whether that is an admin.
    pub(crate) admin: bool,
    /// The user's; see [`Claims::generation`].
    pub(crate) generation: i64,
    /// Whether the user has just shown the password.
    pub(crate) fresh: bool,
    /// See [`Claims::family`].
    pub(crate) family: Option<String>,
}

impl<'a> Grant<'a> {
    /// Of a token for a user.
    pub(crate) fn to(user: &'a UserRow, fresh: bool) -> Self {
        let admin = Role::from_name(&user.role) == Role::Admin;
        Self { user: &user.username, admin, generation: user.generation, fresh, family: None }
    }
}

/// A token, and what it says.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) claims: Claims,
}

/// Signs tokens.
pub(crate) struct Signer {
    keys: Keys,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_lifetime: Duration,
}

impl Signer {
    pub(crate) fn new(keys: Keys, config: &Config) -> Self {
        install_crypto_provider();
        Self {
            keys,
            access_lifetime: config.access_token_lifetime,
            refresh_lifetime: config.refresh_token_lifetime,
        }
    }

    /// When the last token of a family expires of which one is given out now.
    pub(crate) fn family_end(&self, now: i64) -> i64 {
        now.saturating_add_unsigned(self.refresh_lifetime.max(self.access_lifetime).as_secs())
    }

    /// A new token.
    pub(crate) fn sign(&self, kind: TokenKind, grant: Grant<'_>) -> Result<Token, SignError> {
        let lifetime = match kind {
            TokenKind::Access => self.access_lifetime,
            TokenKind::Refresh => self.refresh_lifetime,
        };
        let now = clock::now();
        let claims = Claims {
            fresh: grant.fresh,
            iat: now,
            jti: ids::random()?,
            kind,
            sub: grant.user.to_owned(),
            nbf: now,
            exp: now.saturating_add_unsigned(lifetime.as_secs()),
            generation: grant.generation,
            family: grant.family,
            admin: grant.admin,
        };
        let keys = self.keys.borrow().clone();
        let key = keys.signing(now).ok_or(SignError::NoKey)?;
        let header = Header { kid: Some(key.kid().to_owned()), ..Header::new(Algorithm::EdDSA) };
        Ok(Token { text: encode(&header, &claims, &EncodingKey::from_ed_der(key.seed()))?, claims })
    }
}
