//! The users, as those who manage them see them.

use std::borrow::Cow;

use muse_proto::v1;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    AuthError, clock,
    passwords::{self, PasswordHashPool},
    store::{Change, ChangeError, Store, UserRow},
    usernames::{self, NameProblem},
};

/// Users that are read at a time.
const PAGE: u64 = 500;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May embed and tokenize.
    User,
    /// May manage the users, too.
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

    /// The role of that name; what is not known may do the least.
    pub(crate) fn from_name(name: &str) -> Self {
        if name == Self::Admin.as_str() { Self::Admin } else { Self::User }
    }
}

/// A user, without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, which tokens have as `sub`.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the user is kept from logging in.
    pub disabled: bool,
    /// When the user was added, in seconds since 1970.
    pub created_at: i64,
}

impl User {
    /// The name as it is printed: characters that would change the text around them, which names of
    /// new users do not have, are escaped.
    #[must_use]
    pub fn printable_name(&self) -> Cow<'_, str> {
        usernames::escaped(&self.name)
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            role: Role::from_name(&row.role),
            name: row.username,
            disabled: row.disabled,
            created_at: row.created_at,
        }
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

/// Adds, changes and removes users, also while the service runs.
#[derive(Debug, Clone)]
pub struct Users {
    store: Store,
    hash_pool: PasswordHashPool,
    exposed: bool,
    keep_an_admin: bool,
}

impl Users {
    pub(crate) fn new(store: Store, hash_pool: PasswordHashPool, exposed: bool) -> Self {
        Self { store, hash_pool, exposed, keep_an_admin: false }
    }

    /// The same, but refuses to leave nobody who may manage users.
    pub(crate) fn keeping_an_admin(self) -> Self {
        Self { keep_an_admin: true, ..self }
    }

    /// Adds a user.
    ///
    /// # Errors
    ///
    /// If the name or the password is not allowed, or the name is taken.
    pub async fn add(&self, name: &str, password: SecretString, role: Role) -> Result<User, AuthError> {
        let name = self.check_new_name(name).await?;
        passwords::check_new(&name, password.expose_secret(), self.exposed)?;
        self.add_unchecked(&name, password, role).await
    }

    /// Adds a user with any password.
    pub(crate) async fn add_unchecked(
        &self,
        name: &str,
        password: SecretString,
        role: Role,
    ) -> Result<User, AuthError> {
        let hash = self.hash_pool.hash(password).await.map_err(AuthError::Hash)?;
        self.add_hashed(name, &hash, role).await
    }

    /// Adds a user whose password was hashed before.
    pub(crate) async fn add_hashed(&self, name: &str, hash: &str, role: Role) -> Result<User, AuthError> {
        let created_at = clock::now();
        if self.store.add_user(name, hash, role, created_at).await? {
            Ok(User { name: name.to_owned(), role, disabled: false, created_at })
        } else {
            Err(AuthError::UserExists(name.to_owned()))
        }
    }

    /// Replaces a user's password, which ends the user's tokens.
    ///
    /// # Errors
    ///
    /// If the password is not allowed, or there is no such user.
    pub async fn set_password(&self, name: &str, password: SecretString) -> Result<User, AuthError> {
        passwords::check_new(name, password.expose_secret(), self.exposed)?;
        let hash = self.hash_pool.hash(password).await.map_err(AuthError::Hash)?;
        self.change(name, Change::PasswordHash(hash)).await
    }

    /// Removes a user, whose tokens end with that.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn remove(&self, name: &str) -> Result<User, AuthError> {
        self.change(name, Change::Remove).await
    }

    /// Keeps a user from logging in and ends the user's tokens, or lets the user log in again.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn set_disabled(&self, name: &str, disabled: bool) -> Result<User, AuthError> {
        self.change(name, Change::Disabled(disabled)).await
    }

    /// Gives a user another role.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn set_role(&self, name: &str, role: Role) -> Result<User, AuthError> {
        self.change(name, Change::Role(role)).await
    }

    /// Ends all tokens that a user has.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn revoke_tokens(&self, name: &str) -> Result<User, AuthError> {
        self.change(name, Change::Tokens).await
    }

    async fn change(&self, name: &str, change: Change) -> Result<User, AuthError> {
        let row = self.store.user_of_any_form(name).await?;
        let name = row.as_ref().map_or(name, |row| row.username.as_str());
        let expire_at = clock::now().saturating_add(self.store.longest_lifetime().await?);
        let changed = self.store.change_user(name, &change, expire_at, self.keep_an_admin).await;
        changed.map(User::from).map_err(|failure| match failure {
            ChangeError::NoSuchUser => AuthError::NoSuchUser(name.to_owned()),
            ChangeError::LastAdmin => AuthError::LastAdmin(name.to_owned()),
            ChangeError::Database(cause) => AuthError::Database(cause),
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
            let page = self.page(after, PAGE).await?;
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

    /// Checks that [`Users::add`] accepts a name, and returns its normal form, which the user will
    /// have.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, taken, or looks like that of another user.
    pub async fn check_new_name(&self, name: &str) -> Result<String, AuthError> {
        let bad = |problem| AuthError::BadName { name: name.to_owned(), problem };
        let normal = usernames::normalize_new(name).map_err(bad)?;
        if self.store.user(&normal).await?.is_some() {
            return Err(AuthError::UserExists(normal));
        }
        // Names in ASCII are told apart as they always were.
        let others = self.store.names(normal.is_ascii()).await?;
        if let Some(other) = others.into_iter().find(|other| usernames::look_alike(other, &normal)) {
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
        Ok(self.store.user_of_any_form(name).await?.is_some())
    }

    pub(crate) async fn any(&self) -> Result<bool, AuthError> {
        Ok(self.store.has_users().await?)
    }
}
