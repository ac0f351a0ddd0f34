//! The first user.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use muse_telemetry::print_to_operator;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::{
    AuthError,
    config::Config,
    passwords::{PasswordHashPool, Priority, Verdict},
    store::Store,
    users::{Role, Users},
};

/// The first user's name; on a service that only this machine reaches it is the password, too.
pub(crate) const ADMIN: &str = "admin";

/// Makes the user `admin` if there is no user at all.
pub(crate) async fn ensure_a_user(config: &Config, users: &Users) -> Result<(), AuthError> {
    if users.any().await? {
        return Ok(());
    }
    let made = if let Some(password) = &config.admin_password {
        users.add(ADMIN, password.clone(), Role::Admin).await.map(|_| {
            info!(user = ADMIN, "made the first user, with the password that was given");
        })
    } else if config.exposed {
        let password = random_password()?;
        users.add(ADMIN, password.clone(), Role::Admin).await.map(|_| {
            // Not through the log, which is collected and kept.
            print_to_operator(&format!(
                "\nThe first user is {ADMIN:?}, the password {:?}. It is not shown again.\n\
                 Change it with: muse-auth user passwd {ADMIN}\n",
                password.expose_secret()
            ));
        })
    } else {
        users.add_unchecked(ADMIN, SecretString::from(ADMIN), Role::Admin).await.map(|_| {
            warn!(user = ADMIN, "made the first user, with a password that everyone knows: change it");
        })
    };
    match made {
        // Another process on the same database was faster.
        Err(AuthError::UserExists(_)) => Ok(()),
        other => other,
    }
}

/// Refuses to go on where users come from other machines and `admin` still has the password that everyone knows.
pub(crate) async fn refuse_default_password(
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
        Verdict::Right { .. } => Err(AuthError::DefaultPassword),
        Verdict::Wrong => Ok(()),
    }
}

fn random_password() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes)?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes)))
}
