//! User management.

use std::{borrow::Cow, sync::Arc};

use muse_proto::v1;
use muse_verifier::Claims;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    AuthError, Quota, clock,
    passwords::{self, PasswordHashPool},
    store::{ChangedUser, Permission, Requester, Store, UserChange, UserChangeError, UserRow},
    usernames::{self, NameProblem},
};

/// Users that are read at a time.
const PAGE_SIZE: u64 = 500;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May embed and tokenize.
    User,
    /// May also manage users.
    Admin,
}

impl Role {
    /// Its name, in the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role of that name. An unknown name is the role with the least rights.
    pub(crate) fn from_name(name: &str) -> Self {
        if name == Self::Admin.as_str() { Self::Admin } else { Self::User }
    }
}

/// A user, without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, which is the claim `sub` of tokens.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the user cannot log in.
    pub disabled: bool,
    /// Unix time of the creation, in seconds.
    pub created_at: i64,
    /// The limit on the user's tokens.
    pub quota: Option<Quota>,
}

impl User {
    /// The name for printing: characters that change the text around them are escaped. Names of new
    /// users contain none.
    #[must_use]
    pub fn printable_name(&self) -> Cow<'_, str> {
        usernames::escape(&self.name)
    }
}

/// A user after a change, or before the removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserUpdate {
    /// The user.
    pub user: User,
    /// The number of API keys that the change has deleted.
    pub deleted_keys: u64,
}

impl From<User> for v1::User {
    fn from(user: User) -> Self {
        let role = match user.role {
            Role::User => v1::Role::User,
            Role::Admin => v1::Role::Admin,
        };
        Self {
            username: user.name,
            role: role.into(),
            disabled: user.disabled,
            created_at: user.created_at,
            quota: user.quota.map(Into::into),
        }
    }
}

fn described(row: UserRow, quota: Option<Quota>) -> User {
    User { role: row.role(), name: row.username, disabled: row.disabled, created_at: row.created_at, quota }
}

/// Manages users, also while the service runs.
#[derive(Debug, Clone)]
pub struct Users {
    store: Store,
    hash_pool: PasswordHashPool,
    exposed: bool,
    /// Who requests the changes; `None` is the operator.
    requester: Option<Requester>,
}

impl Users {
    pub(crate) fn new(store: Store, hash_pool: PasswordHashPool, exposed: bool) -> Self {
        Self { store, hash_pool, exposed, requester: None }
    }

    /// The same, but changes are made by the user of a token. They are rejected if the token is no
    /// longer valid or does not have the permission when they are stored, or if they would leave no
    /// enabled admin.
    pub(crate) fn on_behalf_of(&self, claims: &Arc<Claims>, permission: Permission) -> Self {
        let requester = Requester { claims: Arc::clone(claims), permission };
        Self { requester: Some(requester), ..self.clone() }
    }

    /// Adds a user.
    ///
    /// # Errors
    ///
    /// If the name or the password is not allowed, or a user has the name.
    pub async fn add(&self, name: &str, password: SecretString, role: Role) -> Result<User, AuthError> {
        let name = self.check_new_name(name).await?;
        let password = passwords::nfc(&password);
        passwords::check_new(&name, password.expose_secret(), self.exposed)?;
        self.add_unchecked(&name, password, role).await
    }

    /// Adds a user without checks of name and password.
    pub(crate) async fn add_unchecked(
        &self,
        name: &str,
        password: SecretString,
        role: Role,
    ) -> Result<User, AuthError> {
        let hash = self.hash_pool.hash(password).await.map_err(AuthError::Hash)?;
        self.add_hashed(name, &hash, role).await
    }

    /// Adds a user by the hash of the password.
    pub(crate) async fn add_hashed(&self, name: &str, hash: &str, role: Role) -> Result<User, AuthError> {
        let created_at = clock::now();
        let added = self.store.add_user(name, hash, role, created_at, self.requester.as_ref()).await;
        if added.map_err(|failure| change_failed(failure, name))? {
            Ok(User { name: name.to_owned(), role, disabled: false, created_at, quota: None })
        } else {
            Err(AuthError::UserExists(name.to_owned()))
        }
    }

    /// Replaces a user's password, revokes the user's tokens, and with `delete_keys` deletes the
    /// API keys.
    ///
    /// # Errors
    ///
    /// If the password is not allowed, or there is no such user.
    pub async fn set_password(
        &self,
        name: &str,
        password: SecretString,
        delete_keys: bool,
    ) -> Result<UserUpdate, AuthError> {
        let password = passwords::nfc(&password);
        passwords::check_new(name, password.expose_secret(), self.exposed)?;
        let hash = self.hash_pool.hash(password).await.map_err(AuthError::Hash)?;
        self.change(name, UserChange::PasswordHash { hash, delete_keys }).await
    }

    /// Removes a user and revokes the user's tokens.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn remove(&self, name: &str) -> Result<UserUpdate, AuthError> {
        self.change(name, UserChange::Remove).await
    }

    /// Disables a user and revokes the user's tokens, or enables the user again.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn set_disabled(&self, name: &str, disabled: bool) -> Result<UserUpdate, AuthError> {
        self.change(name, UserChange::Disabled(disabled)).await
    }

    /// Changes the role of a user.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn set_role(&self, name: &str, role: Role) -> Result<UserUpdate, AuthError> {
        self.change(name, UserChange::Role(role)).await
    }

    /// Sets the quota of a user, or removes it ([`Quota::NONE`]).
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn set_quota(&self, name: &str, quota: Quota) -> Result<UserUpdate, AuthError> {
        self.change(name, UserChange::Quota(quota)).await
    }

    /// Revokes all tokens of a user, and with `delete_keys` deletes the API keys.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn revoke_tokens(&self, name: &str, delete_keys: bool) -> Result<UserUpdate, AuthError> {
        self.change(name, UserChange::RevokeTokens { delete_keys }).await
    }

    async fn change(&self, name: &str, change: UserChange) -> Result<UserUpdate, AuthError> {
        let name = self.stored_name(name).await?;
        let expire_at = clock::now().saturating_add(self.store.max_token_lifetime().await?);
        let changed = self.store.change_user(&name, &change, expire_at, self.requester.as_ref()).await;
        let ChangedUser { user, quota, deleted_keys } =
            changed.map_err(|failure| change_failed(failure, &name))?;
        Ok(UserUpdate { user: described(user, quota), deleted_keys })
    }

    /// Users with their quotas.
    async fn describe(&self, rows: Vec<UserRow>) -> Result<Vec<User>, AuthError> {
        let names = rows.iter().map(|row| row.username.clone()).collect();
        let quotas = self.store.user_quotas(names).await?;
        let user = |row: UserRow| {
            let quota = quotas.get(&row.username).copied();
            described(row, quota)
        };
        Ok(rows.into_iter().map(user).collect())
    }

    /// All users, by name.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn list(&self) -> Result<Vec<User>, AuthError> {
        let mut all: Vec<User> = Vec::new();
        loop {
            let after = all.last().map_or("", |user| user.name.as_str());
            let page = self.page(after, PAGE_SIZE).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// At most `limit` users whose names come after `after`, by name.
    pub(crate) async fn page(&self, after: &str, limit: u64) -> Result<Vec<User>, AuthError> {
        self.describe(self.store.users_after(after, limit).await?).await
    }

    /// The user of a stored name.
    pub(crate) async fn get(&self, name: &str) -> Result<User, AuthError> {
        let row = self.store.user(name).await?;
        let described = self.describe(row.into_iter().collect()).await?;
        described.into_iter().next().ok_or_else(|| AuthError::NoSuchUser(name.to_owned()))
    }

    /// Checks that [`Users::add`] accepts a name, and returns its normal form, the name of the
    /// user.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, or is that of another user or confusable with it.
    pub async fn check_new_name(&self, name: &str) -> Result<String, AuthError> {
        let bad = |problem| AuthError::BadName { name: name.to_owned(), problem };
        let normal = usernames::normalize_new(name).map_err(bad)?;
        if self.store.user(&normal).await?.is_some() {
            return Err(AuthError::UserExists(normal));
        }
        // Two names in ASCII are never confusable: such names existed before this check.
        let others = self.store.names(normal.is_ascii()).await?;
        if let Some(other) = others.into_iter().find(|other| usernames::are_confusable(other, &normal)) {
            return Err(bad(NameProblem::Confusable(other)));
        }
        Ok(normal)
    }

    /// The stored name of the user of a name as typed, in any of its normal forms; as typed if
    /// there is no such user.
    pub(crate) async fn stored_name(&self, typed: &str) -> Result<String, AuthError> {
        let user = self.store.find_user(typed).await?;
        Ok(user.map_or_else(|| typed.to_owned(), |user| user.username))
    }

    /// Whether there is such a user.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn exists(&self, name: &str) -> Result<bool, AuthError> {
        Ok(self.store.find_user(name).await?.is_some())
    }

    pub(crate) async fn any(&self) -> Result<bool, AuthError> {
        Ok(self.store.has_users().await?)
    }
}

fn change_failed(failure: UserChangeError, name: &str) -> AuthError {
    match failure {
        UserChangeError::NoSuchUser => AuthError::NoSuchUser(name.to_owned()),
        UserChangeError::LastAdmin => AuthError::LastAdmin(name.to_owned()),
        UserChangeError::Unauthorized(cause) => cause.into(),
        UserChangeError::Database(cause) => AuthError::Database(cause),
    }
}
