//! Issues tokens.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use muse_verifier::{Claims, TokenKind, install_crypto_provider};

use crate::{clock, config::Config, ids, keys::KeyringReceiver, store::UserRow, users::Role};

/// Why a token could not be signed: an internal error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("cannot sign: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("there is no signing key")]
    NoKey,
}

/// What a token is issued for.
#[derive(Debug, Clone)]
pub(crate) struct Grant<'a> {
    pub(crate) user: &'a str,
    /// Whether the user is an admin.
    pub(crate) admin: bool,
    /// See [`Claims::generation`].
    pub(crate) generation: i64,
    /// Whether the token is issued for a login, not for a refresh.
    pub(crate) fresh: bool,
    /// See [`Claims::family`].
    pub(crate) family: Option<String>,
}

impl<'a> Grant<'a> {
    /// A token of no family for a user.
    pub(crate) fn new(user: &'a UserRow, fresh: bool) -> Self {
        let admin = user.role() == Role::Admin;
        Self { user: &user.username, admin, generation: user.generation, fresh, family: None }
    }
}

/// A token and its claims.
#[derive(Debug)]
pub(crate) struct SignedToken {
    pub(crate) text: String,
    pub(crate) claims: Claims,
}

/// Signs tokens.
pub(crate) struct TokenSigner {
    keys: KeyringReceiver,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_lifetime: Duration,
}

impl TokenSigner {
    pub(crate) fn new(keys: KeyringReceiver, config: &Config) -> Self {
        install_crypto_provider();
        Self {
            keys,
            access_lifetime: config.access_token_lifetime,
            refresh_lifetime: config.refresh_token_lifetime,
        }
    }

    /// The latest expiry of a token family that gets a token now.
    pub(crate) fn family_end(&self, now: i64) -> i64 {
        now.saturating_add_unsigned(self.refresh_lifetime.max(self.access_lifetime).as_secs())
    }

    /// Issues a token.
    pub(crate) fn sign(&self, kind: TokenKind, grant: Grant<'_>) -> Result<SignedToken, SignError> {
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
        Ok(SignedToken { text: encode(&header, &claims, &EncodingKey::from_ed_der(key.seed()))?, claims })
    }
}
