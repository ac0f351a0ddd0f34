//! The first user.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::{AuthError, config::Config, users::Users};

const NAME: &str = "admin";

/// Makes the user `admin` if there is no user at all.
pub(crate) async fn ensure_a_user(config: &Config, users: &Users) -> Result<(), AuthError> {
    if users.any().await? {
        return Ok(());
    }
    if let Some(password) = &config.admin_password {
        users.add(NAME, password.clone()).await?;
        info!(user = NAME, "made the first user, with the password that was given");
    } else if config.default_admin {
        users.add(NAME, SecretString::from(NAME)).await?;
        warn!(user = NAME, "made the first user, with a password that everyone knows: change it");
    } else {
        let password = random_password()?;
        users.add(NAME, password.clone()).await?;
        // Not through the log, which is collected and kept.
        eprintln!(
            "\nThe first user is {NAME:?}, the password {:?}. It is not shown again.\n\
             Change it with: muse-auth user passwd {NAME}\n",
            password.expose_secret()
        );
    }
    Ok(())
}

fn random_password() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes)?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes)))
}
