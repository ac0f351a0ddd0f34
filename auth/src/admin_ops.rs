//! What an operator does to the database besides managing users, also while the service runs.

use std::path::Path;

use tracing::info;

use crate::{
    AuthError, Config, Users, clock,
    keys::{self, KeyInfo, Keyring},
    legacy_import,
    passwords::PasswordHashPool,
    store::{BackupError, Missing, Store},
    usernames::{self, NameProblem},
    users::Role,
};

/// A database and the configuration of its service.
#[derive(Debug)]
pub struct AdminOps {
    store: Store,
    config: Config,
}

/// What an import did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Who was added.
    pub added: Vec<String>,
    /// Who was there already, and stays as they are.
    pub present: Vec<String>,
    /// Who was added with a name that a new user could not have, and why. The name is valid for
    /// logging in.
    pub discouraged: Vec<(String, NameProblem)>,
    /// Who cannot be added, and why.
    pub unusable: Vec<(String, String)>,
    /// Revocations of tokens that mean nothing here, and were left out.
    pub revoked_tokens: u64,
}

impl AdminOps {
    /// Opens the database, and creates a SQLite file that is missing.
    ///
    /// # Errors
    ///
    /// [`AuthError::Open`].
    pub async fn open(config: Config) -> Result<Self, AuthError> {
        Ok(Self { store: Store::open(&config.database, Missing::Create).await?, config })
    }

    /// Opens a database that exists.
    ///
    /// # Errors
    ///
    /// [`AuthError::Open`], also if the SQLite file is missing.
    pub async fn open_existing(config: Config) -> Result<Self, AuthError> {
        Ok(Self { store: Store::open(&config.database, Missing::Refuse).await?, config })
    }

    /// The keys that tokens are signed and verified with, in the order in which they sign.
    ///
    /// # Errors
    ///
    /// If the database fails, or a key is damaged.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>, AuthError> {
        Ok(self.keyring().await?.describe(clock::now()))
    }

    /// Adds a key that will sign in place of the current one, when all who verify tokens have had time to hear of it.
    ///
    /// # Errors
    ///
    /// If the service has other keys than those that this configuration gives.
    pub async fn rotate_key(&self) -> Result<KeyInfo, AuthError> {
        let secret = self.config.secret.as_ref();
        self.store.add_key(|rows| keys::next(rows, secret, clock::now())).await?;
        let newest = self.keys().await?.pop();
        newest.ok_or_else(|| AuthError::Key("the new key was removed already".to_owned()))
    }

    /// Removes a key, which ends all tokens that it signed.
    ///
    /// # Errors
    ///
    /// If there is no such key, or it is the one that signs.
    pub async fn remove_key(&self, kid: &str) -> Result<(), AuthError> {
        let keys = self.keys().await?;
        let key = keys.iter().find(|key| key.kid == kid);
        match key {
            None => Err(AuthError::Key(format!("there is no key {kid:?}"))),
            Some(key) if key.signs => Err(AuthError::Key(format!(
                "{kid} is the key that tokens are signed with: rotate first, and wait until the new key signs"
            ))),
            Some(_) => Ok(self.store.remove_keys(&[kid]).await?),
        }
    }

    async fn keyring(&self) -> Result<Keyring, AuthError> {
        Keyring::read(&self.store.keys().await?, self.config.secret.as_ref())
    }

    /// Takes over the users of a database of the service that this one replaces, with their passwords. Who is there
    /// already stays as they are, so a second run changes nothing. The user `admin` becomes an admin.
    ///
    /// # Errors
    ///
    /// If the file is no such database, before anything is changed.
    pub async fn import(&self, path: &Path) -> Result<Imported, AuthError> {
        let old = legacy_import::read(path).await?;
        let users = self.users()?;
        let mut done =
            Imported { unusable: old.unusable, revoked_tokens: old.revoked_tokens, ..Imported::default() };
        for user in old.users {
            let role = if user.name == crate::bootstrap::ADMIN { Role::Admin } else { Role::User };
            match users.add_hashed(&user.name, &user.password_hash, role).await {
                Ok(added) => {
                    if let Err(problem) = usernames::normalize_new(&added.name) {
                        done.discouraged.push((added.name.clone(), problem));
                    }
                    done.added.push(added.name);
                }
                Err(AuthError::UserExists(name)) => done.present.push(name),
                Err(other) => return Err(other),
            }
        }
        info!(added = done.added.len(), present = done.present.len(), "imported users of the old service");
        Ok(done)
    }

    /// Writes all that is in the database to a new file, for its owner only.
    ///
    /// # Errors
    ///
    /// If the file is there, cannot be written, or the database is in Postgres.
    pub async fn back_up(&self, path: &Path) -> Result<(), BackupError> {
        self.store.back_up(path).await
    }

    /// The users.
    ///
    /// # Errors
    ///
    /// [`AuthError::Threads`].
    pub fn users(&self) -> Result<Users, AuthError> {
        let hash_pool = PasswordHashPool::new(1, self.config.cost)?;
        Ok(Users::new(self.store.clone(), hash_pool, self.config.exposed))
    }

    /// Closes the database.
    pub async fn close(self) {
        self.store.close().await;
    }
}
