//! The first user.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use muse_telemetry::print_to_operator;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::{
    AuthError,
    config::Config,
    passwords::{PasswordCheck, PasswordHashPool, Priority},
    store::Store,
    usernames::ADMIN,
    users::{Role, Users},
};

/// Creates the user `admin` if there are no users.
pub(crate) async fn create_first_user(config: &Config, users: &Users) -> Result<(), AuthError> {
    if users.any().await? {
        return Ok(());
    }
    let created = if let Some(password) = &config.admin_password {
        users.add(ADMIN, password.clone(), Role::Admin).await.map(|_| {
            info!(user = ADMIN, "created the first user with the configured password");
        })
    } else if config.exposed {
        let password = random_password()?;
        users.add(ADMIN, password.clone(), Role::Admin).await.map(|_| {
            // Not to the log, which may be collected and stored.
            print_to_operator(&format!(
                "\nThe first user is {ADMIN:?}, the password {:?}. It is not shown again.\n\
                 Change it with: muse-auth user passwd {ADMIN}\n",
                password.expose_secret()
            ));
        })
    } else {
        users.add_unchecked(ADMIN, SecretString::from(ADMIN), Role::Admin).await.map(|_| {
            warn!(user = ADMIN, "created the first user with the default password: change it");
        })
    };
    match created {
        // Another process with the same database was faster.
        Err(AuthError::UserExists(_)) => Ok(()),
        other => other,
    }
}

/// Returns an error if users connect from other machines and `admin` has the default password.
pub(crate) async fn reject_default_password(
    config: &Config,
    store: &Store,
    hash_pool: &PasswordHashPool,
) -> Result<(), AuthError> {
    if !config.exposed {
        return Ok(());
    }
    let Some(admin) = store.user(ADMIN).await? else { return Ok(()) };
    let check = hash_pool.check(SecretString::from(ADMIN), Some(admin.password_hash), Priority::Known);
    match check.await.map_err(AuthError::Hash)? {
        PasswordCheck::Match { .. } => Err(AuthError::DefaultPassword),
        PasswordCheck::Mismatch => Ok(()),
    }
}

fn random_password() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes)?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes)))
}
