//! User management.

use std::borrow::Cow;

use muse_proto::v1;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    AuthError, clock,
    passwords::{self, PasswordHashPool},
    store::{ChangedUser, Store, UserChange, UserChangeError, UserRow},
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
}

impl User {
    /// The name for printing: characters that change the text around them are escaped. Names of new
    /// users contain none.
    #[must_use]
    pub fn printable_name(&self) -> Cow<'_, str> {
        usernames::escape(&self.name)
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self { role: row.role(), name: row.username, disabled: row.disabled, created_at: row.created_at }
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

impl From<ChangedUser> for UserUpdate {
    fn from(changed: ChangedUser) -> Self {
        Self { user: changed.user.into(), deleted_keys: changed.deleted_keys }
    }
}

impl From<User> for v1::User {
    fn from(user: User) -> Self {
        let role = match user.role {
            Role::User => v1::Role::User,
            Role::Admin => v1::Role::Admin,
        };
        Self { username: user.name, role: role.into(), disabled: user.disabled, created_at: user.created_at }
    }
}

/// Manages users, also while the service runs.
#[derive(Debug, Clone)]
pub struct Users {
    store: Store,
    hash_pool: PasswordHashPool,
    exposed: bool,
    protect_last_admin: bool,
}

impl Users {
    pub(crate) fn new(store: Store, hash_pool: PasswordHashPool, exposed: bool) -> Self {
        Self { store, hash_pool, exposed, protect_last_admin: false }
    }

    /// The same, but changes that would leave no enabled admin are rejected.
    pub(crate) fn protecting_last_admin(self) -> Self {
        Self { protect_last_admin: true, ..self }
    }

    /// Adds a user.
    ///
    /// # Errors
    ///
    /// If the name or the password is not allowed, or a user has the name.
    pub async fn add(&self, name: &str, password: SecretString, role: Role) -> Result<User, AuthError> {
        let name = self.check_new_name(name).await?;
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
        if self.store.add_user(name, hash, role, created_at).await? {
            Ok(User { name: name.to_owned(), role, disabled: false, created_at })
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

    /// Revokes all tokens of a user, and with `delete_keys` deletes the API keys.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn revoke_tokens(&self, name: &str, delete_keys: bool) -> Result<UserUpdate, AuthError> {
        self.change(name, UserChange::RevokeTokens { delete_keys }).await
    }

    async fn change(&self, name: &str, change: UserChange) -> Result<UserUpdate, AuthError> {
        let row = self.store.find_user(name).await?;
        let name = row.as_ref().map_or(name, |row| row.username.as_str());
        let expire_at = clock::now().saturating_add(self.store.max_token_lifetime().await?);
        let changed = self.store.change_user(name, &change, expire_at, self.protect_last_admin).await;
        changed.map(UserUpdate::from).map_err(|failure| match failure {
            UserChangeError::NoSuchUser => AuthError::NoSuchUser(name.to_owned()),
            UserChangeError::LastAdmin => AuthError::LastAdmin(name.to_owned()),
            UserChangeError::Database(cause) => AuthError::Database(cause),
        })
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
        Ok(self.store.users_after(after, limit).await?.into_iter().map(User::from).collect())
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
