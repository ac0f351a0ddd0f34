//! API keys: long-lived credentials of programs, with fewer rights than their owners.
//!
//! A key is the responsibility of its owner: it ends when the owner is removed or disabled. It is
//! not a token, so a change of the password and a revocation of all tokens do not delete it unless
//! that is requested. Its format is that of [`muse_verifier::api_keys`].

mod name;

use std::sync::Arc;

use muse_proto::{Error, v1};
use muse_verifier::{
    Claims,
    api_keys::{KeyId, KeyState, ParsedKey, SECRET_BYTES, compose, key_unknown},
};
use sea_orm::DbErr;
use secrecy::SecretString;

use crate::{
    AuthError, Quota, clock,
    error::database_failed,
    pages::{self, all_pages},
    store::{ApiKeyRow, KeyChangeError, KeyListFilter, Permission, Requester, Store, mark_deleted},
};

/// Keys of a user that were not deleted.
const MAX_KEYS_PER_USER: u64 = 1_000;
/// The longest time until a key expires: ten years.
const MAX_LIFETIME_SECONDS: i64 = 10 * 366 * 86_400;
/// Keys that are read at a time.
const PAGE_SIZE: u64 = 500;

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The permanent id.
    pub id: KeyId,
    /// The name for people.
    pub name: String,
    /// The user whom its calls count for.
    pub owner: String,
    /// When it was created, in seconds since 1970.
    pub created_at: i64,
    /// The user who created it; `None` for the operator.
    pub created_by: Option<String>,
    /// When it expires, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Whether it is rejected until it is enabled again.
    pub disabled: bool,
    /// Whether its calls are a bulk job.
    pub bulk: bool,
    /// The start of the day on which it was last used, in seconds since 1970.
    pub last_used_day: Option<i64>,
    /// The network from which it was used on that day.
    pub last_used_from: String,
    /// The limit on its tokens.
    pub quota: Option<Quota>,
}

/// A key to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewApiKey<'a> {
    /// 1 to 100 bytes without control characters.
    pub name: &'a str,
    /// The user whom its calls will count for.
    pub owner: &'a str,
    /// Seconds until it expires; 0 for never.
    pub expires_in: i64,
    /// Whether its calls are a bulk job.
    pub bulk: bool,
    /// The limit on its tokens.
    pub quota: Quota,
}

/// Changes of a key: of those properties that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyChange {
    /// Another name.
    pub name: Option<String>,
    /// Whether it is rejected.
    pub disabled: Option<bool>,
    /// Seconds from now until it expires; 0 for never.
    pub expires_in: Option<i64>,
    /// Whether its calls are a bulk job.
    pub bulk: Option<bool>,
    /// The limit on its tokens; [`Quota::NONE`] to remove it.
    pub quota: Option<Quota>,
}

/// Creates, lists, changes and deletes API keys, also while the service runs.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    store: Store,
    /// Who requests the changes; `None` is the operator.
    requester: Option<Requester>,
}

impl ApiKeys {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, requester: None }
    }

    /// The same, but changes are made by the user of a token. They are rejected if, when they are
    /// stored, the token is no longer valid, or the user is neither an admin nor the owner of the
    /// key.
    pub(crate) fn on_behalf_of(&self, claims: &Arc<Claims>) -> Self {
        let requester = Requester { claims: Arc::clone(claims), permission: Permission::AdminOrSelf };
        Self { requester: Some(requester), ..self.clone() }
    }

    /// Creates a key, and returns its description and the key itself, which cannot be read again.
    ///
    /// # Errors
    ///
    /// If an argument is invalid, the owner does not exist or is disabled, or has too many keys.
    pub async fn create(&self, new: NewApiKey<'_>) -> Result<(ApiKey, SecretString), AuthError> {
        let requester = self.requester.as_ref();
        name::check(new.name)?;
        let now = clock::now();
        let expires_at = expiry(new.expires_in, now)?;
        let owner = self.store.find_user(new.owner).await?.map(|user| user.username);
        let owner = owner.ok_or_else(|| AuthError::NoSuchUser(new.owner.to_owned()))?;
        let (mut id, mut secret) = ([0; 8], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        let id = KeyId::new(u64::from_le_bytes(id));
        let (key, digest) = compose(id, &secret);
        let key = SecretString::from(key);
        let row = ApiKeyRow {
            id: id.number().cast_signed(),
            version: 0,
            name: new.name.to_owned(),
            owner,
            digest: digest.to_vec(),
            created_at: now,
            created_by: requester.map(|requester| requester.claims.sub.clone()).unwrap_or_default(),
            expires_at,
            disabled: false,
            bulk: new.bulk,
            deleted_at: 0,
            last_used_day: 0,
            last_used_from: String::new(),
        };
        let added = self.store.add_api_key(&row, new.quota, MAX_KEYS_PER_USER, requester).await;
        added.map_err(|failure| change_failed(failure, &row.owner))?;
        Ok((describe(row, Some(new.quota)), key))
    }

    /// A key of `owner`, or of any user.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuchKey`], also if it belongs to another user.
    pub async fn get(&self, id: &str, owner: Option<&str>) -> Result<ApiKey, AuthError> {
        let id: KeyId = id.parse().map_err(|_| AuthError::NoSuchKey)?;
        let row = self.store.api_key(id).await?.filter(|row| row.deleted_at == 0);
        let row = row.filter(|row| owner.is_none_or(|owner| row.owner == owner));
        Ok(self.describe_one(row.ok_or(AuthError::NoSuchKey)?).await?)
    }

    /// Changes a key.
    ///
    /// # Errors
    ///
    /// If an argument is invalid; [`AuthError::NoSuchKey`].
    pub async fn update(&self, id: &str, change: ApiKeyChange) -> Result<ApiKey, AuthError> {
        let id = id.parse().map_err(|_| AuthError::NoSuchKey)?;
        let ApiKeyChange { name, disabled, expires_in, bulk, quota } = change;
        if let Some(name) = &name {
            name::check(name)?;
        }
        let expires_at = expires_in.map(|seconds| expiry(seconds, clock::now())).transpose()?;
        let changed = self.store.change_api_key(id, self.requester.as_ref(), quota, move |row| {
            if let Some(name) = name {
                row.name = name;
            }
            row.disabled = disabled.unwrap_or(row.disabled);
            row.expires_at = expires_at.unwrap_or(row.expires_at);
            row.bulk = bulk.unwrap_or(row.bulk);
        });
        let (row, quota) = changed.await.map_err(|failure| change_failed(failure, ""))?;
        Ok(describe(row, quota))
    }

    /// Deletes a key, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuchKey`].
    pub async fn delete(&self, id: &str) -> Result<ApiKey, AuthError> {
        let id = id.parse().map_err(|_| AuthError::NoSuchKey)?;
        let requester = self.requester.as_ref();
        let deleted = self.store.change_api_key(id, requester, Some(Quota::NONE), mark_deleted).await;
        deleted.map(|(row, quota)| describe(row, quota)).map_err(|failure| change_failed(failure, ""))
    }

    /// All keys, or those of a user, by the second of their creation.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn list(&self, owner: Option<&str>) -> Result<Vec<ApiKey>, AuthError> {
        all_pages(async |page_token| self.page(owner, page_token, PAGE_SIZE).await).await
    }

    /// At most `limit` keys after those of the page with this token, and the token of the next
    /// page.
    pub(crate) async fn page(
        &self,
        owner: Option<&str>,
        page_token: &str,
        limit: u64,
    ) -> Result<(Vec<ApiKey>, Option<String>), AuthError> {
        let after = position(page_token)?;
        let owner = match owner {
            Some(typed) => {
                let user = self.store.find_user(typed).await?;
                Some(user.ok_or_else(|| AuthError::NoSuchUser(typed.to_owned()))?.username)
            }
            None => None,
        };
        let owner = owner.as_deref();
        // One more shows whether this is the last page.
        let filter = KeyListFilter { owner, after, limit: limit + 1 };
        let mut rows = self.store.list_api_keys(filter).await?;
        let next = pages::truncate(&mut rows, limit);
        let next = next.map(|row| format!("{}-{}", row.created_at, key_id(row)));
        let quotas = self.store.key_quotas(rows.iter().map(|row| row.id).collect()).await?;
        let key = |row: ApiKeyRow| {
            let quota = quotas.get(&row.id).copied();
            describe(row, quota)
        };
        Ok((rows.into_iter().map(key).collect(), next))
    }

    async fn describe_one(&self, row: ApiKeyRow) -> Result<ApiKey, DbErr> {
        let quota = self.store.key_quotas(vec![row.id]).await?.remove(&row.id);
        Ok(describe(row, quota))
    }

    /// Verifies a key against the database, and returns its description. The verifiers of the other
    /// services have copies; this one is what they are copies of.
    pub(crate) async fn authenticate(&self, key: &str) -> Result<ApiKey, Error> {
        let key = ParsedKey::parse(key)?;
        let row = self.store.api_key(key.id).await.map_err(database_failed)?.ok_or_else(key_unknown)?;
        let state = KeyState {
            digest: &row.digest,
            deleted: row.deleted_at != 0,
            disabled: row.disabled,
            expires_at: row.expires_at,
        };
        state.verify(&key, clock::now())?;
        self.describe_one(row).await.map_err(database_failed)
    }
}

fn change_failed(failure: KeyChangeError, owner: &str) -> AuthError {
    match failure {
        KeyChangeError::NoSuchUser => AuthError::NoSuchUser(owner.to_owned()),
        KeyChangeError::NoSuchKey => AuthError::NoSuchKey,
        KeyChangeError::Unauthorized(cause) => cause.into(),
        KeyChangeError::TooMany => {
            AuthError::TooManyKeys { owner: owner.to_owned(), limit: MAX_KEYS_PER_USER }
        }
        KeyChangeError::Database(cause) => AuthError::Database(cause),
    }
}

/// The Unix time of an expiry; 0 for never.
fn expiry(expires_in: i64, now: i64) -> Result<i64, AuthError> {
    match expires_in {
        0 => Ok(0),
        1..=MAX_LIFETIME_SECONDS => Ok(now + expires_in),
        _ => Err(AuthError::BadKey {
            field: "expires_in",
            problem: "it is in seconds, from 1 to ten years; 0 is for never",
        }),
    }
}

/// The time of creation and the id of the last key of a page.
fn position(page_token: &str) -> Result<(i64, i64), AuthError> {
    if page_token.is_empty() {
        return Ok((i64::MIN, 0));
    }
    let parse = || {
        let (created_at, id) = page_token.split_once('-')?;
        let id: KeyId = id.parse().ok()?;
        Some((created_at.parse().ok()?, id.number().cast_signed()))
    };
    parse().ok_or(AuthError::BadKey { field: "page_token", problem: "it is not one of a page before" })
}

fn key_id(row: &ApiKeyRow) -> KeyId {
    KeyId::new(row.id.cast_unsigned())
}

fn describe(row: ApiKeyRow, quota: Option<Quota>) -> ApiKey {
    let set = |time: i64| (time != 0).then_some(time);
    ApiKey {
        id: key_id(&row),
        name: row.name,
        owner: row.owner,
        created_at: row.created_at,
        created_by: Some(row.created_by).filter(|name| !name.is_empty()),
        expires_at: set(row.expires_at),
        disabled: row.disabled,
        bulk: row.bulk,
        last_used_day: set(row.last_used_day),
        last_used_from: row.last_used_from,
        quota: quota.filter(|quota| quota.is_limit()),
    }
}

impl From<ApiKey> for v1::ApiKey {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            owner: key.owner,
            created_at: key.created_at,
            created_by: key.created_by.unwrap_or_default(),
            expires_at: key.expires_at.unwrap_or_default(),
            disabled: key.disabled,
            bulk: key.bulk,
            last_used_day: key.last_used_day.unwrap_or_default(),
            last_used_from: key.last_used_from,
            quota: key.quota.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::Reason;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::{Role, store::fixture::store};

    #[tokio::test]
    async fn key_is_authenticated_by_its_digest() {
        let (_folder, store) = store().await;
        store.add_user("ann", "hash", Role::User, 0, None).await.unwrap();
        let keys = ApiKeys::new(store.clone());
        let new = NewApiKey { name: "a", owner: "ann", expires_in: 0, bulk: false, quota: Quota::NONE };
        let (key, secret) = keys.create(new).await.unwrap();
        let secret = secret.expose_secret();
        assert_eq!(keys.authenticate(secret).await.unwrap(), key);
        let row = store.api_key(key.id).await.unwrap().unwrap();
        assert!(!format!("{row:?} {key:?}").contains(&secret[18..]));
        assert_eq!(row.digest.len(), 32);

        let (other, _) = compose(key.id, &[9; SECRET_BYTES]);
        assert_eq!(keys.authenticate(&other).await.unwrap_err().reason(), Reason::KeyUnknown);
        store.change_api_key(key.id, None, None, |row| row.expires_at = 1).await.unwrap();
        assert_eq!(keys.authenticate(secret).await.unwrap_err().reason(), Reason::KeyExpired);
        keys.delete(&key.id.to_string()).await.unwrap();
        assert_eq!(keys.authenticate(secret).await.unwrap_err().reason(), Reason::KeyRevoked);
    }

    #[tokio::test]
    async fn invalid_arguments_are_named() {
        let (_folder, store) = store().await;
        store.add_user("ann", "hash", Role::User, 0, None).await.unwrap();
        let keys = ApiKeys::new(store);
        let valid = NewApiKey { name: "a", owner: "ann", expires_in: 0, bulk: false, quota: Quota::NONE };
        let field = async |new: NewApiKey<'_>| match keys.create(new).await.map(drop) {
            Err(AuthError::BadKey { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for name in ["", "a\nb", "muse_aaaaaaaaaaaa_bbbb", &"a".repeat(101)] {
            assert_eq!(field(NewApiKey { name, ..valid }).await, "name", "{name}");
        }
        for expires_in in [-1, MAX_LIFETIME_SECONDS + 1, i64::MAX] {
            assert_eq!(field(NewApiKey { expires_in, ..valid }).await, "expires_in");
        }
        let key = compose(KeyId::new(1), &[1; SECRET_BYTES]).0;
        let pasted = keys.create(NewApiKey { owner: &key, ..valid }).await.map(drop).unwrap_err();
        assert_eq!(pasted.to_string(), "there is no user \"an API key\"");
        let unknown = keys.create(NewApiKey { owner: "nobody", ..valid }).await.map(drop);
        assert!(matches!(unknown, Err(AuthError::NoSuchUser(_))), "{unknown:?}");
        for page_token in ["x", "1-", "1-aaaa", "-"] {
            assert!(keys.page(None, page_token, 1).await.is_err(), "{page_token}");
        }
        assert!(matches!(keys.list(Some("nobody")).await, Err(AuthError::NoSuchUser(_))));
    }
}
