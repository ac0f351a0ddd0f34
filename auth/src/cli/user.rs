//! `muse-auth user …`.

use std::io::{self, Write};

use clap::{Subcommand, ValueEnum};
use muse_auth::{AuthError, Quota, Role, Users};

use super::{CommandError, prompt::new_password, quota::QuotaArgs, report, utc};

/// Commands for users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user. Prompts for the password on a terminal, otherwise it is a line of standard
    /// input.
    Add {
        /// The name of the new user.
        name: String,
        /// The role of the user.
        #[arg(long, value_enum, default_value = "user")]
        role: RoleName,
    },
    /// Remove a user, revoke the user's tokens, and delete the user's API keys.
    Remove {
        /// The name of the user.
        name: String,
    },
    /// Print the users, one per line: the name, the time of creation (UTC), the role, and, if so,
    /// `disabled` and the quota.
    List,
    /// Change the password of a user and revoke the user's tokens. Prompts for the password on a
    /// terminal, otherwise it is a line of standard input.
    Passwd {
        /// The name of the user.
        name: String,
        /// Delete the user's API keys, too.
        #[arg(long)]
        delete_keys: bool,
    },
    /// Disable a user, who cannot log in then, revoke the user's tokens, and delete the user's API
    /// keys.
    Disable {
        /// The name of the user.
        name: String,
    },
    /// Enable a disabled user.
    Enable {
        /// The name of the user.
        name: String,
    },
    /// Change the role of a user.
    Role {
        /// The name of the user.
        name: String,
        /// The role of the user.
        role: RoleName,
    },
    /// Limit the tokens that a user may embed within a day or a month.
    Quota {
        /// The name of the user.
        name: String,
        #[command(flatten)]
        quota: QuotaArgs,
    },
    /// Revoke all tokens of a user. API keys are not tokens: they remain valid.
    Revoke {
        /// The name of the user.
        name: String,
        /// Delete the user's API keys, too.
        #[arg(long)]
        delete_keys: bool,
    },
}

/// The role of a user.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// May embed and tokenize.
    User,
    /// May also manage users.
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::User => Self::User,
            RoleName::Admin => Self::Admin,
        }
    }
}

fn report_deleted_keys(name: &str, count: u64) {
    report(format_args!("deleted {count} API keys of {name:?}"));
}

pub(super) async fn execute(command: UserCommand, users: &Users) -> Result<(), CommandError> {
    match command {
        UserCommand::Add { name, role } => {
            // Before the prompt, so that nobody types a password in vain.
            let name = users.check_new_name(&name).await?;
            users.add(&name, new_password(&name)?, role.into()).await?;
            report(format_args!("added {name:?}"));
        }
        UserCommand::Passwd { name, delete_keys } => {
            if !users.exists(&name).await? {
                return Err(AuthError::NoSuchUser(name).into());
            }
            let changed = users.set_password(&name, new_password(&name)?, delete_keys).await?;
            report(format_args!("changed the password of {name:?}"));
            if delete_keys {
                report_deleted_keys(&name, changed.deleted_keys);
            }
        }
        UserCommand::Remove { name } => {
            users.remove(&name).await?;
            report(format_args!("removed {name:?}"));
        }
        UserCommand::Disable { name } => {
            users.set_disabled(&name, true).await?;
            report(format_args!("disabled {name:?}"));
        }
        UserCommand::Enable { name } => {
            users.set_disabled(&name, false).await?;
            report(format_args!("enabled {name:?}"));
        }
        UserCommand::Role { name, role } => {
            let user = users.set_role(&name, role.into()).await?.user;
            report(format_args!("changed the role of {name:?} to {}", user.role.as_str()));
        }
        UserCommand::Quota { name, quota } => {
            let user = users.set_quota(&name, quota.into()).await?.user;
            let quota = user.quota.unwrap_or(Quota::NONE);
            report(format_args!("the quota of {name:?} is {quota}"));
        }
        UserCommand::Revoke { name, delete_keys } => {
            let changed = users.revoke_tokens(&name, delete_keys).await?;
            report(format_args!("revoked all tokens of {name:?}"));
            if delete_keys {
                report_deleted_keys(&name, changed.deleted_keys);
            }
        }
        UserCommand::List => {
            let mut out = io::stdout().lock();
            for user in users.list().await? {
                let disabled = if user.disabled { "\tdisabled" } else { "" };
                let quota = user.quota.map(|quota| format!("\t{quota}")).unwrap_or_default();
                writeln!(
                    out,
                    "{}\t{}\t{}{disabled}{quota}",
                    user.printable_name(),
                    utc(user.created_at),
                    user.role.as_str()
                )?;
            }
            out.flush()?;
        }
    }
    Ok(())
}
