//! Operations of the operator on the database, also while the service runs.

use std::path::Path;

use tracing::info;

use crate::{
    ApiKeys, AuthError, Config, Usage, Users, clock,
    keys::{self, KeyInfo, Keyring},
    legacy_import,
    passwords::PasswordHashPool,
    store::{BackupError, MissingFile, Store},
    usernames::{self, ADMIN, NameProblem},
    users::Role,
};

/// A database and the configuration of its service.
#[derive(Debug)]
pub struct AdminOps {
    store: Store,
    config: Config,
}

/// The outcome of an import.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// Added users.
    pub added: Vec<String>,
    /// Users that existed already, and were not changed.
    pub present: Vec<String>,
    /// Added users whose names new users could not have, and why. They can log in.
    pub discouraged: Vec<(String, NameProblem)>,
    /// Users that cannot be imported, and why.
    pub rejected: Vec<(String, String)>,
    /// Revoked tokens, which are not imported: tokens of the old service are not valid here.
    pub revoked_tokens: u64,
}

impl AdminOps {
    /// Opens the database, and creates a SQLite file that is missing.
    ///
    /// # Errors
    ///
    /// [`AuthError::Open`].
    pub async fn open(config: Config) -> Result<Self, AuthError> {
        Ok(Self { store: Store::open(&config.database, MissingFile::Create).await?, config })
    }

    /// Opens a database that exists.
    ///
    /// # Errors
    ///
    /// [`AuthError::Open`], also if the SQLite file is missing.
    pub async fn open_existing(config: Config) -> Result<Self, AuthError> {
        Ok(Self { store: Store::open(&config.database, MissingFile::Reject).await?, config })
    }

    /// The API keys.
    #[must_use]
    pub fn api_keys(&self) -> ApiKeys {
        ApiKeys::new(self.store.clone())
    }

    /// The usage per user and API key.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::new(self.store.clone())
    }

    /// The signing keys, in the order in which they sign.
    ///
    /// # Errors
    ///
    /// If the database fails, or a key is damaged.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>, AuthError> {
        Ok(self.keyring().await?.describe(clock::now()))
    }

    /// Adds a key that replaces the signing one as soon as all verifiers have had time to receive
    /// it.
    ///
    /// # Errors
    ///
    /// If the keys of the service do not belong to the secret of this configuration.
    pub async fn rotate_key(&self) -> Result<KeyInfo, AuthError> {
        let secret = self.config.secret.as_ref();
        self.store.add_key(|rows| keys::next_key(rows, secret, clock::now())).await?;
        let newest = self.keys().await?.pop();
        newest.ok_or_else(|| AuthError::Key("the new key was removed already".to_owned()))
    }

    /// Removes a key, so that the tokens that it signed are no longer valid.
    ///
    /// # Errors
    ///
    /// If there is no such key, or it is the signing one.
    pub async fn remove_key(&self, kid: &str) -> Result<(), AuthError> {
        let keys = self.keys().await?;
        let key = keys.iter().find(|key| key.kid == kid);
        match key {
            None => Err(AuthError::Key(format!("there is no key {kid:?}"))),
            Some(key) if key.signs => Err(AuthError::Key(format!(
                "{kid} is the signing key: rotate first, and wait until the new key signs"
            ))),
            Some(_) => Ok(self.store.remove_keys(&[kid]).await?),
        }
    }

    async fn keyring(&self) -> Result<Keyring, AuthError> {
        Keyring::read(&self.store.keys().await?, self.config.secret.as_ref())
    }

    /// Imports the users of a database of the service that this one replaces, with their passwords.
    /// Existing users are not changed, so a second run changes nothing. The user `admin` becomes an
    /// admin.
    ///
    /// # Errors
    ///
    /// If the file is not such a database. In this case nothing is changed.
    pub async fn import(&self, path: &Path) -> Result<ImportReport, AuthError> {
        let legacy = legacy_import::read(path).await?;
        let users = self.users()?;
        let mut report = ImportReport {
            rejected: legacy.rejected,
            revoked_tokens: legacy.revoked_tokens,
            ..ImportReport::default()
        };
        for user in legacy.users {
            let role = if user.name == ADMIN { Role::Admin } else { Role::User };
            match users.add_hashed(&user.name, &user.password_hash, role).await {
                Ok(added) => {
                    if let Err(problem) = usernames::normalize_new(&added.name) {
                        report.discouraged.push((added.name.clone(), problem));
                    }
                    report.added.push(added.name);
                }
                Err(AuthError::UserExists(name)) => report.present.push(name),
                Err(other) => return Err(other),
            }
        }
        info!(
            added = report.added.len(),
            present = report.present.len(),
            "imported users of the old service"
        );
        Ok(report)
    }

    /// Copies the database to a new file with permissions for its owner only.
    ///
    /// # Errors
    ///
    /// If the file exists or cannot be written, or the database is in Postgres.
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
