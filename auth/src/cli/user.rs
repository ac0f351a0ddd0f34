//! `muse-auth user …`.

use std::io::{self, Write};

use clap::{Subcommand, ValueEnum};
use muse_auth::{AuthError, Role, Users};

use super::{CommandError, prompt::new_password, report, utc};

/// What can be done to users. A password is asked for on a terminal, else one line of standard input is it.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user. The password is asked for, or is one line of standard input.
    Add {
        /// The new user's name.
        name: String,
        /// What the user may do.
        #[arg(long, value_enum, default_value = "user")]
        role: RoleName,
    },
    /// Remove a user, whose tokens end with that.
    Remove {
        /// The user's name.
        name: String,
    },
    /// Print each user's name, when the user was added (UTC), the role, and `disabled` or not, one a line.
    List,
    /// Change a user's password, which ends the user's tokens. It is asked for, or is one line of standard input.
    Passwd {
        /// The user's name.
        name: String,
    },
    /// Keep a user from logging in, and end the user's tokens.
    Disable {
        /// The user's name.
        name: String,
    },
    /// Let a disabled user log in again.
    Enable {
        /// The user's name.
        name: String,
    },
    /// Give a user another role.
    Role {
        /// The user's name.
        name: String,
        /// What the user may do.
        role: RoleName,
    },
    /// End all tokens that a user has.
    Revoke {
        /// The user's name.
        name: String,
    },
}

/// What a user may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// Embed and tokenize.
    User,
    /// Manage the users, too.
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

pub(super) async fn execute(command: UserCommand, users: &Users) -> Result<(), CommandError> {
    match command {
        UserCommand::Add { name, role } => {
            // Before the password is asked for, so that nobody types it in vain.
            let name = users.check_new_name(&name).await?;
            users.add(&name, new_password(&name)?, role.into()).await?;
            report(format_args!("added {name:?}"));
        }
        UserCommand::Passwd { name } => {
            if !users.exists(&name).await? {
                return Err(AuthError::NoSuchUser(name).into());
            }
            users.set_password(&name, new_password(&name)?).await?;
            report(format_args!("changed the password of {name:?}"));
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
            let user = users.set_role(&name, role.into()).await?;
            report(format_args!("gave {name:?} the role {}", user.role.as_str()));
        }
        UserCommand::Revoke { name } => {
            users.revoke_tokens(&name).await?;
            report(format_args!("ended all tokens of {name:?}"));
        }
        UserCommand::List => {
            let mut out = io::stdout().lock();
            for user in users.list().await? {
                let disabled = if user.disabled { "\tdisabled" } else { "" };
                writeln!(
                    out,
                    "{}\t{}\t{}{disabled}",
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
