//! The users, as an operator sees them.

use secrecy::{ExposeSecret, SecretString};
use tokio::task::spawn_blocking;

use crate::{AuthError, clock, config::Config, passwords, store::Store};

const LONGEST_NAME: usize = 64;

/// A user, without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, which tokens hold as `sub`.
    pub name: String,
    /// When the user was added, in seconds since 1970.
    pub created_at: i64,
}

/// Adds, changes and removes users, also while the service runs.
#[derive(Debug, Clone)]
pub struct Users {
    store: Store,
}

impl Users {
    /// Opens the database of a configuration.
    ///
    /// # Errors
    ///
    /// [`AuthError::Open`].
    pub async fn open(config: &Config) -> Result<Self, AuthError> {
        Ok(Self::new(Store::open(&config.database).await?))
    }

    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds a user.
    ///
    /// # Errors
    ///
    /// If the name or the password is not allowed, or the name is taken.
    pub async fn add(&self, name: &str, password: SecretString) -> Result<(), AuthError> {
        if !is_name(name) {
            return Err(AuthError::BadName(name.to_owned()));
        }
        let hash = hash(password).await?;
        if self.store.add_user(name, &hash, clock::now()).await? {
            Ok(())
        } else {
            Err(AuthError::UserExists(name.to_owned()))
        }
    }

    /// Replaces a user's password.
    ///
    /// # Errors
    ///
    /// If the password is not allowed, or there is no such user.
    pub async fn set_password(&self, name: &str, password: SecretString) -> Result<(), AuthError> {
        let hash = hash(password).await?;
        let found = self.store.set_password_hash(name, &hash).await?;
        if found { Ok(()) } else { Err(AuthError::NoSuchUser(name.to_owned())) }
    }

    /// Removes a user.
    ///
    /// # Errors
    ///
    /// If there is no such user.
    pub async fn remove(&self, name: &str) -> Result<(), AuthError> {
        let found = self.store.remove_user(name).await?;
        if found { Ok(()) } else { Err(AuthError::NoSuchUser(name.to_owned())) }
    }

    /// All users, by name.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn list(&self) -> Result<Vec<User>, AuthError> {
        Ok(self.store.users().await?)
    }

    /// Checks that [`Users::add`] would take a name.
    ///
    /// # Errors
    ///
    /// If the name is not allowed or taken.
    pub async fn check_new_name(&self, name: &str) -> Result<(), AuthError> {
        if !is_name(name) {
            Err(AuthError::BadName(name.to_owned()))
        } else if self.exists(name).await? {
            Err(AuthError::UserExists(name.to_owned()))
        } else {
            Ok(())
        }
    }

    /// Whether there is such a user.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn exists(&self, name: &str) -> Result<bool, AuthError> {
        Ok(self.store.password_hash(name).await?.is_some())
    }

    pub(crate) async fn any(&self) -> Result<bool, AuthError> {
        Ok(self.store.has_users().await?)
    }

    /// Closes the database.
    pub async fn close(self) {
        self.store.close().await;
    }
}

async fn hash(password: SecretString) -> Result<String, AuthError> {
    passwords::check_new(password.expose_secret())?;
    spawn_blocking(move || passwords::hash(&password))
        .await
        .unwrap_or_else(|failure| Err(AuthError::Hash(failure.to_string())))
}

/// Whether a user may have this name: what can be typed and read back without mistake.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len()) && name.trim() == name && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_short() {
        for name in ["a", "admin", "ann@example.org", "Ångström", "two words", &"x".repeat(64)] {
            assert!(is_name(name), "{name:?}");
        }
        for name in [
            "",
            " ",
            " a",
            "a ",
            "a\t",
            "a\nb",
            "a\0b",
            "\u{a0}a",
            "\u{7f}",
            &"x".repeat(65),
            &"é".repeat(33),
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
