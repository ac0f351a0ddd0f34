//! Decides whether a token holds.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use muse_proto::{
    Error, Reason,
    v1::{JsonWebKey, Revocation},
};
use tokio::sync::{Notify, watch};

use crate::{
    bearer,
    claims::{Claims, TokenKind},
    install_crypto_provider,
    keys::{self, Keys},
    revoked::Revoked,
};

/// A token may be used this much before its `nbf`, since the clocks of two machines differ. Its `exp` is exact.
pub const NBF_LEEWAY_SECONDS: i64 = 5;

const BAD_SIGNATURE: &str = "Signature verification failed";

/// Checks tokens. A clone is another handle on the same keys and revocations.
#[derive(Clone)]
pub struct Verifier {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    validation: Validation,
    keys: RwLock<Keys>,
    revoked: RwLock<Revoked>,
    /// Whether keys and revocations were complete at least once.
    synced: watch::Sender<bool>,
    /// A token named a key that is not known here.
    pub(crate) unknown_key: Notify,
}

impl Verifier {
    /// A verifier that knows nothing yet, and refuses everything with [`Reason::Unavailable`] until it is
    /// [synced](Self::follow).
    #[must_use]
    pub fn new() -> Self {
        install_crypto_provider();
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Time is checked here, after the signature and before the kind.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            shared: Arc::new(Shared {
                validation,
                keys: RwLock::default(),
                revoked: RwLock::new(Revoked::new()),
                synced: watch::Sender::new(false),
                unknown_key: Notify::new(),
            }),
        }
    }

    /// A verifier that needs to follow nobody: the auth service's own.
    #[must_use]
    pub fn with_keys(keys: &[JsonWebKey]) -> Self {
        let verifier = Self::new();
        verifier.replace_keys(keys);
        verifier.mark_synced();
        verifier
    }

    /// Checks the `Authorization` header of a request and the token in it.
    ///
    /// # Errors
    ///
    /// Those of [`bearer::token`] and [`Verifier::verify`].
    pub fn authorize(&self, headers: &HeaderMap, kind: Option<TokenKind>) -> Result<Claims, Error> {
        self.authorize_value(bearer::authorization(headers).as_deref(), kind)
    }

    /// As [`Verifier::authorize`], for the value of the header.
    ///
    /// # Errors
    ///
    /// Those of [`bearer::token`] and [`Verifier::verify`].
    pub fn authorize_value(&self, value: Option<&[u8]>, kind: Option<TokenKind>) -> Result<Claims, Error> {
        self.verify(bearer::token(value)?, kind)
    }

    /// Checks a token: its form and signature, its time, its kind (any, if `kind` is `None`), and that it was not
    /// revoked, in this order.
    ///
    /// # Errors
    ///
    /// [`Reason::TokenInvalid`], [`Reason::TokenExpired`], [`Reason::TokenKind`], [`Reason::TokenRevoked`];
    /// [`Reason::Unavailable`] as long as the verifier has not been synced.
    pub fn verify(&self, token: &str, kind: Option<TokenKind>) -> Result<Claims, Error> {
        if !self.synced() {
            return Err(Error::new(Reason::Unavailable, "Tokens cannot be checked yet"));
        }
        let claims = self.signed_claims(token)?;
        let now = now();
        if claims.exp <= now {
            return Err(Error::new(Reason::TokenExpired, "Token has expired"));
        }
        if claims.nbf > now + NBF_LEEWAY_SECONDS {
            return Err(invalid("The token is not yet valid (nbf)"));
        }
        match kind {
            Some(TokenKind::Access) if claims.kind != TokenKind::Access => {
                return Err(Error::new(Reason::TokenKind, "Only non-refresh tokens are allowed"));
            }
            Some(TokenKind::Refresh) if claims.kind != TokenKind::Refresh => {
                return Err(Error::new(Reason::TokenKind, "Only refresh tokens are allowed"));
            }
            _ => (),
        }
        if read(&self.shared.revoked).contains(&claims.jti) {
            return Err(Error::new(Reason::TokenRevoked, "Token has been revoked"));
        }
        Ok(claims)
    }

    fn signed_claims(&self, token: &str) -> Result<Claims, Error> {
        let header = decode_header(token).map_err(|failure| match failure.kind() {
            ErrorKind::InvalidToken => invalid("Not enough segments"),
            _ => invalid("Invalid header string"),
        })?;
        // RFC 7515, 4.1.11: what `crit` lists must be understood, and nothing is.
        if header.alg != Algorithm::EdDSA || header.crit.is_some() {
            return Err(invalid("The specified alg value is not allowed"));
        }
        let known = header.kid.and_then(|kid| read(&self.shared.keys).get(&kid).cloned());
        let Some(key) = known else {
            self.shared.unknown_key.notify_one();
            return Err(invalid(BAD_SIGNATURE));
        };
        let decoded = decode::<Claims>(token, &key, &self.shared.validation);
        decoded.map(|token| token.claims).map_err(|failure| match failure.kind() {
            // By then the signature was right: the auth service signed something that it should not have.
            ErrorKind::Json(_) | ErrorKind::Utf8(_) => invalid("A claim is missing or of the wrong type"),
            _ => invalid(BAD_SIGNATURE),
        })
    }

    /// Refuses a token from now on, whatever the auth service says.
    pub fn revoke(&self, jti: &str, expires_at: i64) {
        write(&self.shared.revoked).insert(jti, expires_at, now());
    }

    /// Refuses many tokens from now on.
    pub fn revoke_all(&self, revocations: &[Revocation]) {
        let now = now();
        let mut revoked = write(&self.shared.revoked);
        for revocation in revocations {
            revoked.insert(&revocation.jti, revocation.expires_at, now);
        }
    }

    /// Replaces the public keys by those of a JWKS, and returns how many of them are of use. If none is, the keys
    /// stay what they were.
    pub fn replace_keys(&self, published: &[JsonWebKey]) -> usize {
        let keys = keys::read(published);
        let usable = keys.len();
        if usable > 0 {
            *write(&self.shared.keys) = keys;
        }
        usable
    }

    /// Whether keys and revocations were complete at least once.
    #[must_use]
    pub fn synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until [`Verifier::synced`].
    pub async fn wait_until_synced(&self) {
        // It cannot fail: the sender lives as long as `self`.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub(crate) fn mark_synced(&self) {
        self.shared.synced.send_replace(true);
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("synced", &self.synced()).finish_non_exhaustive()
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Reason::TokenInvalid, message)
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

// What the locks guard is whole at every moment, so a panic elsewhere does not make it unusable.

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
