//! Decides whether a token holds.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use muse_proto::{
    Error, Reason,
    v1::{JsonWebKey, Revocation, UserTokens, revocation::What},
};
use muse_telemetry::{log_throttle::LogThrottle, metrics::Metrics};
use tracing::warn;

use crate::{
    bearer,
    claims::{Claims, TokenKind},
    install_crypto_provider,
    keys::{BAD_SIGNATURE, Keys, Untrusted},
    locks::{read, write},
    revocation_list::RevocationList,
    sync_state::SyncState,
};

/// Clock skew that is tolerated: a token is accepted this many seconds before its `nbf`. Its `exp`
/// is exact.
pub const NBF_LEEWAY_SECONDS: i64 = 60;

/// When to come back to a verifier that is out of touch: it tries to be back itself at least this often.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often the token of a call that goes on is looked at.
const BETWEEN_CHECKS: Duration = Duration::from_millis(500);

/// Checks tokens. A clone is another handle on the same keys and revocations.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

struct Shared {
    keys: RwLock<Arc<Keys>>,
    revoked: RevocationList,
    contact: SyncState,
    log_throttle: LogThrottle,
}

impl Verifier {
    /// A verifier that knows nothing yet, and refuses everything with [`Reason::Unavailable`] until it is
    /// [synced](Self::follow); and again when it has not heard the auth service for `max_staleness`, since the tokens
    /// that it would accept may have been revoked meanwhile.
    #[must_use]
    pub fn new(max_staleness: Duration) -> Self {
        Self::with_contact(SyncState::new(max_staleness))
    }

    /// A verifier that follows nobody: the auth service's own.
    #[must_use]
    pub fn with_keys(keys: &[JsonWebKey]) -> Self {
        let verifier = Self::with_contact(SyncState::own());
        verifier.replace_keys(keys);
        verifier
    }

    fn with_contact(contact: SyncState) -> Self {
        install_crypto_provider();
        let keys = RwLock::new(Arc::new(Keys::read(&[])));
        Self {
            shared: Arc::new(Shared {
                keys,
                revoked: RevocationList::new(),
                contact,
                log_throttle: LogThrottle::default(),
            }),
        }
    }

    /// Checks the `Authorization` header of a request and the token in it.
    ///
    /// # Errors
    ///
    /// Those of [`bearer::token`] and [`Verifier::verify`].
    pub fn authorize(&self, headers: &HeaderMap, kind: Option<TokenKind>) -> Result<Arc<Claims>, Error> {
        self.authorize_value(bearer::authorization(headers).as_deref(), kind)
    }

    /// As [`Verifier::authorize`], for the value of the header.
    ///
    /// # Errors
    ///
    /// Those of [`bearer::token`] and [`Verifier::verify`].
    pub fn authorize_value(
        &self,
        value: Option<&[u8]>,
        kind: Option<TokenKind>,
    ) -> Result<Arc<Claims>, Error> {
        self.verify(bearer::token(value)?, kind)
    }

    /// Checks a token: its form and signature, its time, its kind (any, if `kind` is `None`), and that it was not
    /// revoked, in this order.
    ///
    /// # Errors
    ///
    /// [`Reason::TokenInvalid`], [`Reason::TokenExpired`], [`Reason::TokenKind`], [`Reason::TokenRevoked`];
    /// [`Reason::Unavailable`] before the first sync, after too long without contact, and, without contact, for a
    /// token whose key is not known: it may be a new one.
    pub fn verify(&self, token: &str, kind: Option<TokenKind>) -> Result<Arc<Claims>, Error> {
        let contact = &self.shared.contact;
        if !contact.synced() {
            return Err(unavailable("Tokens cannot be checked yet"));
        }
        if contact.is_stale() {
            return Err(unavailable(
                "Tokens cannot be checked: the auth service has been out of reach for too long",
            ));
        }
        let keys = Arc::clone(&read(&self.shared.keys));
        let claims = keys.claims(token).map_err(|untrusted| match untrusted {
            Untrusted::Invalid(error) => error,
            Untrusted::UnknownKey if contact.in_touch() => invalid(BAD_SIGNATURE),
            Untrusted::UnknownKey => {
                unavailable("The token cannot be checked: the auth service is out of reach")
            }
        })?;
        let now = now();
        if claims.exp <= now {
            return Err(Error::new(Reason::TokenExpired, "Token has expired"));
        }
        let ahead = claims.nbf.saturating_sub(now);
        if ahead > NBF_LEEWAY_SECONDS {
            return Err(self.not_yet_valid(ahead));
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
        if self.shared.revoked.contains(&claims) {
            return Err(Error::new(Reason::TokenRevoked, "Token has been revoked"));
        }
        Ok(claims)
    }

    /// Refuses a token that is valid only `ahead` seconds from now. The key is known, so auth
    /// signed it: the clocks differ.
    fn not_yet_valid(&self, ahead: i64) -> Error {
        if self.shared.log_throttle.allows("clock skew") {
            warn!(
                seconds = ahead,
                tolerated = NBF_LEEWAY_SECONDS,
                "refused a token that is not yet valid: this machine's clock is behind that of the auth service, \
                 synchronise both (NTP)"
            );
        }
        invalid(&format!(
            "The token is not yet valid (nbf): it is valid in {ahead} s by the clock of this service, which is behind \
             that of the auth service"
        ))
    }

    /// Waits until the token of a call that has these headers would be refused, which is found out within a second,
    /// and returns why. For calls that go on for longer than a token holds.
    pub fn until_refused(
        &self,
        headers: &HeaderMap,
        kind: Option<TokenKind>,
    ) -> impl Future<Output = Error> + Send + use<> {
        let verifier = self.clone();
        let authorization = bearer::authorization(headers).map(Cow::into_owned);
        async move {
            loop {
                if let Err(refused) = verifier.authorize_value(authorization.as_deref(), kind) {
                    return refused;
                }
                tokio::time::sleep(BETWEEN_CHECKS).await;
            }
        }
    }

    /// Refuses a token or a family of tokens from now on, whatever the auth service says.
    pub fn revoke(&self, id: &str, expires_at: i64) {
        self.shared.revoked.insert(id, expires_at, now());
    }

    /// Refuses those tokens of a user whose generation is lower.
    pub fn revoke_user(&self, username: &str, before_generation: i64, expires_at: i64) {
        self.shared.revoked.insert_user(username, before_generation, expires_at, now());
    }

    /// Refuses what the auth service says.
    pub fn revoke_all(&self, revocations: &[Revocation]) {
        for Revocation { what, expires_at } in revocations {
            match what {
                Some(What::Jti(id)) => self.revoke(id, *expires_at),
                Some(What::User(UserTokens { username, before_generation })) => {
                    self.revoke_user(username, *before_generation, *expires_at);
                }
                // Of a kind that a newer auth service may know.
                None => (),
            }
        }
    }

    /// Replaces the public keys by those of a JWKS, and returns how many of them are of use. If none is, the keys
    /// stay what they were.
    pub fn replace_keys(&self, published: &[JsonWebKey]) -> usize {
        let current = Arc::clone(&read(&self.shared.keys));
        if current.published == published {
            return current.usable();
        }
        let new = Keys::read(published);
        let usable = new.usable();
        if usable > 0 {
            *write(&self.shared.keys) = Arc::new(new);
        }
        usable
    }

    /// The public keys as the auth service published them.
    #[must_use]
    pub fn published_keys(&self) -> Vec<JsonWebKey> {
        read(&self.shared.keys).published.clone()
    }

    /// Tells in the service's metrics how old is what is known.
    pub fn register_metrics(&self, metrics: &Metrics) {
        let shared = Arc::clone(&self.shared);
        metrics.pulled_gauge(
            "muse_revocation_lag_seconds",
            "How old is what is known of revocations: seconds since the auth service was heard, which speaks once a \
             second.",
            move || shared.contact.silence().as_secs_f64(),
        );
    }

    /// Whether keys and revocations were complete at least once.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.shared.contact.synced()
    }

    /// Waits until [`Verifier::synced`].
    pub async fn wait_until_synced(&self) {
        self.shared.contact.wait_until_synced().await;
    }

    pub(crate) fn contact(&self) -> &SyncState {
        &self.shared.contact
    }

    pub(crate) fn has_keys(&self) -> bool {
        read(&self.shared.keys).usable() > 0
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

fn unavailable(message: &str) -> Error {
    Error::new(Reason::Unavailable, message).with_retry_after(RETRY_AFTER)
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}
