//! `muse-auth user …`.

mod date;
mod prompt;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;
use muse_auth::{AuthError, Config, Users};
use muse_chassis::with_causes;
use tokio::runtime::Runtime;

use prompt::{PromptError, new_password};

/// What can be done to users. Passwords are asked for on a terminal, else one line of standard input is the password.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user. The password is asked for, or is one line of standard input.
    Add {
        /// The new user's name.
        name: String,
    },
    /// Remove a user. Tokens that the user has hold on until they expire.
    Remove {
        /// The user's name.
        name: String,
    },
    /// Print each user's name and when the user was added (UTC), one a line.
    List,
    /// Change a user's password. It is asked for, or is one line of standard input.
    Passwd {
        /// The user's name.
        name: String,
    },
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Does what was asked for, and says on standard error what went wrong.
pub(crate) fn run(command: UserCommand, database: PathBuf) -> ExitCode {
    let done = Runtime::new().map_err(CommandError::Write).and_then(|runtime| {
        runtime.block_on(async {
            let users = Users::open(&Config::new(database)).await?;
            let done = execute(command, &users).await;
            users.close().await;
            done
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", with_causes(&failure));
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: UserCommand, users: &Users) -> Result<(), CommandError> {
    match command {
        UserCommand::Add { name } => {
            // Before the password is asked for, so that nobody types it in vain.
            users.check_new_name(&name).await?;
            users.add(&name, new_password(&name)?).await?;
            eprintln!("added {name:?}");
        }
        UserCommand::Passwd { name } => {
            if !users.exists(&name).await? {
                return Err(AuthError::NoSuchUser(name).into());
            }
            users.set_password(&name, new_password(&name)?).await?;
            eprintln!("changed the password of {name:?}");
        }
        UserCommand::Remove { name } => {
            users.remove(&name).await?;
            eprintln!("removed {name:?}");
        }
        UserCommand::List => {
            let mut out = io::stdout().lock();
            for user in users.list().await? {
                writeln!(out, "{}\t{}", user.name, date::utc(user.created_at))?;
            }
            out.flush()?;
        }
    }
    Ok(())
}
