//! Verification of tokens.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use muse_proto::{
    Error, Reason,
    v1::{JsonWebKey, QuotaState, Revocation, UserTokens, VerifiableKey, revocation::What},
};
use muse_telemetry::{log_throttle::LogThrottle, metrics::Metrics};
use parking_lot::RwLock;
use tracing::warn;

use crate::{
    api_keys::{KeyId, KeyTable, KeyUseLog, ParsedKey, VerifiedKey, is_api_key},
    bearer,
    claims::{Claims, TokenKind},
    credential::{Credential, Principal, key_not_accepted, token_not_accepted},
    install_crypto_provider,
    keys::{BAD_SIGNATURE, KeySet, SignatureProblem},
    quotas::{QuotaStatus, QuotaTable, Quotas},
    revocation_list::RevocationList,
    sync_state::SyncState,
};

/// Clock skew that is tolerated: a token is accepted this many seconds before its `nbf`. Its `exp`
/// is exact.
pub const NBF_LEEWAY_SECONDS: i64 = 60;

/// Retry-After while the verifier is not synced. It tries to reconnect at least this often.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Interval at which the credential of a long call is verified again.
const REVERIFY_INTERVAL: Duration = Duration::from_millis(200);

/// Verifies tokens and API keys. Clones share the keys and the revocation list.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<VerifierState>,
}

struct VerifierState {
    keys: RwLock<Arc<KeySet>>,
    revoked: RevocationList,
    api_keys: RwLock<Arc<KeyTable>>,
    key_uses: KeyUseLog,
    quotas: Quotas,
    sync: SyncState,
    log_throttle: LogThrottle,
}

impl Verifier {
    /// A verifier without keys, which rejects all tokens with [`Reason::Unavailable`] until it is
    /// [synced](Self::follow), and again when the last synchronisation is more than `max_staleness`
    /// ago, because tokens may have been revoked since.
    #[must_use]
    pub fn new(max_staleness: Duration) -> Self {
        Self::with_sync_state(SyncState::new(max_staleness))
    }

    /// A verifier with fixed keys, which is always synced: the auth service's own.
    #[must_use]
    pub fn with_keys(keys: &[JsonWebKey]) -> Self {
        let verifier = Self::with_sync_state(SyncState::always_synced());
        verifier.replace_keys(keys);
        verifier
    }

    fn with_sync_state(sync: SyncState) -> Self {
        install_crypto_provider();
        let keys = RwLock::new(Arc::new(KeySet::parse(&[])));
        Self {
            shared: Arc::new(VerifierState {
                keys,
                revoked: RevocationList::new(),
                api_keys: RwLock::new(Arc::new(KeyTable::new())),
                key_uses: KeyUseLog::default(),
                quotas: Quotas::default(),
                sync,
                log_throttle: LogThrottle::default(),
            }),
        }
    }

    /// Verifies the credential in the `Authorization` header of a request.
    ///
    /// # Errors
    ///
    /// Those of [`bearer::token`], [`Verifier::verify`] and [`Verifier::verify_key`];
    /// [`Reason::PermissionDenied`] for a valid API key where none is accepted, and
    /// [`Reason::TokenKind`] for a token where only keys are.
    pub fn authenticate(&self, headers: &HeaderMap, accepted: Credential) -> Result<Principal, Error> {
        self.authenticate_value(bearer::authorization(headers).as_deref(), accepted)
    }

    /// As [`Verifier::authenticate`], for the value of the header.
    ///
    /// # Errors
    ///
    /// Those of [`Verifier::authenticate`].
    pub fn authenticate_value(&self, value: Option<&[u8]>, accepted: Credential) -> Result<Principal, Error> {
        let credential = bearer::token(value)?;
        if is_api_key(credential) {
            let key = self.verify_key(credential)?;
            return if accepted.accepts_keys() { Ok(Principal::Key(key)) } else { Err(key_not_accepted()) };
        }
        if accepted == Credential::Key {
            return Err(token_not_accepted());
        }
        self.verify(credential, accepted.token_kind()).map(Principal::Token)
    }

    /// Verifies an API key, in this order: form and checksum, that it exists and has this secret,
    /// that it is neither disabled nor expired.
    ///
    /// # Errors
    ///
    /// [`Reason::KeyMalformed`], [`Reason::KeyUnknown`], [`Reason::KeyRevoked`],
    /// [`Reason::KeyDisabled`], [`Reason::KeyExpired`]; [`Reason::Unavailable`] under the conditions
    /// of [`Verifier::verify`], of which an unknown key is one that may be new.
    pub fn verify_key(&self, key: &str) -> Result<VerifiedKey, Error> {
        let key = ParsedKey::parse(key)?;
        self.check_sync_state()?;
        let table = Arc::clone(&self.shared.api_keys.read());
        table.verify(&key, now()).map_err(|error| match error.reason() {
            Reason::KeyUnknown if !self.shared.sync.is_current() => {
                unavailable("The API key cannot be verified: the auth service is unreachable")
            }
            _ => error,
        })
    }

    /// Records the use of an API key from an address, for the report to the auth service.
    pub fn record_use(&self, key: &VerifiedKey, address: IpAddr) {
        self.shared.key_uses.record(key.id, address, now());
    }

    pub(crate) fn key_uses(&self) -> &KeyUseLog {
        &self.shared.key_uses
    }

    /// Adds and changes API keys.
    pub fn apply_keys(&self, keys: &[VerifiableKey]) {
        let table = Arc::clone(&self.shared.api_keys.read());
        for key in keys {
            table.apply(key);
        }
    }

    /// Applies keys of an incomplete snapshot, except that none of them revives a deleted key.
    pub(crate) fn apply_keys_of_snapshot(&self, keys: &[VerifiableKey]) {
        let table = Arc::clone(&self.shared.api_keys.read());
        for key in keys.iter().filter(|key| !table.is_deleted(KeyId::new(key.id))) {
            table.apply(key);
        }
    }

    pub(crate) fn replace_key_table(&self, table: KeyTable) {
        *self.shared.api_keys.write() = Arc::new(table);
    }

    /// The quota of a caller, if there is one. For an API key its own and its owner's apply: the
    /// result is the one of which less is left.
    #[must_use]
    pub fn quota(&self, principal: &Principal) -> Option<QuotaStatus> {
        // Without quotas not even the clock is read.
        if self.has_quotas() { self.shared.quotas.of(principal, now()) } else { None }
    }

    /// Whether any user or API key has a quota.
    #[must_use]
    pub fn has_quotas(&self) -> bool {
        self.shared.quotas.any()
    }

    /// Checks that no quota of a caller is exhausted.
    ///
    /// # Errors
    ///
    /// [`Reason::QuotaExhausted`].
    pub fn check_quota(&self, principal: &Principal) -> Result<(), Error> {
        self.quota(principal).map_or(Ok(()), |quota| quota.check())
    }

    /// Applies states of quotas that have changed.
    pub fn apply_quotas(&self, states: &[QuotaState]) {
        self.shared.quotas.apply(states);
    }

    pub(crate) fn replace_quotas(&self, quotas: QuotaTable) {
        self.shared.quotas.replace(quotas);
    }

    /// Verifies a token, in this order: form and signature, times, kind (any if `kind` is `None`),
    /// and that it is not revoked.
    ///
    /// # Errors
    ///
    /// [`Reason::TokenInvalid`], [`Reason::TokenExpired`], [`Reason::TokenKind`],
    /// [`Reason::TokenRevoked`]; [`Reason::Unavailable`] before the first synchronisation, if the
    /// last one is too long ago, and, while disconnected, for a token of an unknown key, which may
    /// be a new one.
    pub fn verify(&self, token: &str, kind: Option<TokenKind>) -> Result<Arc<Claims>, Error> {
        self.check_sync_state()?;
        let sync = &self.shared.sync;
        let keys = Arc::clone(&self.shared.keys.read());
        let claims = keys.claims(token).map_err(|problem| match problem {
            SignatureProblem::Invalid(error) => error,
            SignatureProblem::UnknownKey if sync.is_current() => invalid(BAD_SIGNATURE),
            SignatureProblem::UnknownKey => {
                unavailable("The token cannot be verified: the auth service is unreachable")
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

    /// Rejects all credentials before the first synchronisation, and if the last one is too long ago.
    fn check_sync_state(&self) -> Result<(), Error> {
        let sync = &self.shared.sync;
        if !sync.synced() {
            return Err(unavailable("Tokens cannot be verified yet"));
        }
        if sync.is_stale() {
            return Err(unavailable(
                "Tokens cannot be verified: the auth service has been unreachable for too long",
            ));
        }
        Ok(())
    }

    /// The error of a token that is not valid until `ahead` seconds from now. Its signature is
    /// valid, so the clocks differ.
    fn not_yet_valid(&self, ahead: i64) -> Error {
        if self.shared.log_throttle.allows("clock skew") {
            warn!(
                seconds = ahead,
                tolerated = NBF_LEEWAY_SECONDS,
                "rejected a token that is not yet valid: this machine's clock is behind that of the auth service, \
                 synchronise both (NTP)"
            );
        }
        invalid(&format!(
            "The token is not yet valid (nbf): it is valid in {ahead} s by the clock of this service, which is behind \
             that of the auth service"
        ))
    }

    /// Waits until the credential in these headers is no longer valid, which is detected within
    /// 200 ms, and returns the error. For calls that last longer than the validity of a token.
    pub fn until_invalid(
        &self,
        headers: &HeaderMap,
        accepted: Credential,
    ) -> impl Future<Output = Error> + Send + use<> {
        let verifier = self.clone();
        let authorization = bearer::authorization(headers).map(Cow::into_owned);
        async move {
            loop {
                if let Err(error) = verifier.authenticate_value(authorization.as_deref(), accepted) {
                    return error;
                }
                tokio::time::sleep(REVERIFY_INTERVAL).await;
            }
        }
    }

    /// Revokes a token or a family in this verifier.
    pub fn revoke(&self, id: &str, expires_at: i64) {
        self.shared.revoked.insert(id, expires_at, now());
    }

    /// Revokes the tokens of a user with a lower generation, in this verifier.
    pub fn revoke_user(&self, username: &str, before_generation: i64, expires_at: i64) {
        self.shared.revoked.insert_user(username, before_generation, expires_at, now());
    }

    /// Applies revocations of the auth service.
    pub fn revoke_all(&self, revocations: &[Revocation]) {
        for Revocation { what, expires_at } in revocations {
            match what {
                Some(What::Jti(id)) => self.revoke(id, *expires_at),
                Some(What::User(UserTokens { username, before_generation })) => {
                    self.revoke_user(username, *before_generation, *expires_at);
                }
                // A kind of a newer auth service.
                None => (),
            }
        }
    }

    /// Replaces the public keys by those of a JWKS, and returns the number of usable ones. If there
    /// are none, the keys are not replaced.
    pub fn replace_keys(&self, published: &[JsonWebKey]) -> usize {
        let current = Arc::clone(&self.shared.keys.read());
        if current.published == published {
            return current.usable();
        }
        let new = KeySet::parse(published);
        let usable = new.usable();
        if usable > 0 {
            *self.shared.keys.write() = Arc::new(new);
        }
        usable
    }

    /// The public keys, as the auth service published them.
    #[must_use]
    pub fn published_keys(&self) -> Vec<JsonWebKey> {
        self.shared.keys.read().published.clone()
    }

    /// Registers the metric of the staleness.
    pub fn register_metrics(&self, metrics: &Metrics) {
        let shared = Arc::clone(&self.shared);
        metrics.pulled_gauge(
            "muse_revocation_lag_seconds",
            "Seconds since the last message of the auth service, which sends one every second: the staleness of the \
             revocation list.",
            move || shared.sync.staleness().as_secs_f64(),
        );
    }

    /// Whether the verifier was synced at least once.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.shared.sync.synced()
    }

    /// Waits until [`Verifier::synced`].
    pub async fn wait_until_synced(&self) {
        self.shared.sync.wait_until_synced().await;
    }

    pub(crate) fn sync_state(&self) -> &SyncState {
        &self.shared.sync
    }

    pub(crate) fn has_keys(&self) -> bool {
        self.shared.keys.read().usable() > 0
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
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
