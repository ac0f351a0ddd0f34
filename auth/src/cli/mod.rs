//! The commands of `muse-auth` besides the service.

mod prompt;
mod user;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use chrono::{DateTime, SecondsFormat};
use clap::Subcommand;
use muse_auth::{AdminOps, AuthError, BackupError, Config, Imported};
use muse_telemetry::with_causes;
use tokio::runtime::Runtime;

use prompt::PromptError;
use user::UserCommand;

/// What an operator can do, also while the service runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage the users.
    #[command(subcommand)]
    User(UserCommand),
    /// Manage the keys that tokens are signed with.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Take over the users of the service that this one replaces, with their passwords.
    Import {
        /// Its SQLite file, app.db.
        file: PathBuf,
    },
    /// Write a copy of the database (SQLite) to a new file.
    Backup {
        /// The file.
        file: PathBuf,
    },
}

impl Command {
    /// Whether it makes sense before the first start of the service. The others would leave an
    /// empty database where the path is mistyped.
    fn may_create_database(&self) -> bool {
        matches!(self, Self::Import { .. } | Self::User(UserCommand::Add { .. }))
    }
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print each key's id, since when it signs, and until when its tokens hold (UTC), one a line.
    List,
    /// Add a key that signs from now on. Tokens of the old one hold until they expire.
    Rotate,
    /// Remove a key, which ends all tokens that it signed.
    Remove {
        /// The key's id.
        kid: String,
    },
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    #[error("{0} of the users cannot be imported")]
    NotAll(usize),
}

/// Does what was asked for, and says on standard error what went wrong.
pub(crate) fn run(command: Command, config: Config) -> ExitCode {
    let done = Runtime::new().map_err(CommandError::Write).and_then(|runtime| {
        runtime.block_on(async {
            let maintenance = if command.may_create_database() {
                AdminOps::open(config).await?
            } else {
                AdminOps::open_existing(config).await?
            };
            let done = execute(command, &maintenance).await;
            maintenance.close().await;
            done
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(format_args!("error: {}", with_causes(&failure)));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard error. If nobody reads it, what was done is done all the same.
fn report(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

async fn execute(command: Command, maintenance: &AdminOps) -> Result<(), CommandError> {
    match command {
        Command::User(command) => user::execute(command, &maintenance.users()?).await,
        Command::Key(command) => key(command, maintenance).await,
        Command::Import { file } => told(&maintenance.import(&file).await?),
        Command::Backup { file } => {
            maintenance.back_up(&file).await?;
            report(format_args!("wrote {}", file.display()));
            Ok(())
        }
    }
}

async fn key(command: KeyCommand, maintenance: &AdminOps) -> Result<(), CommandError> {
    match command {
        KeyCommand::List => {
            let mut out = io::stdout().lock();
            for key in maintenance.keys().await? {
                let until = key.retires_at.map_or_else(|| "-".to_owned(), utc);
                let signs = if key.signs { "\tsigns" } else { "" };
                writeln!(out, "{}\t{}\t{until}{signs}", key.kid, utc(key.active_from))?;
            }
            out.flush()?;
        }
        KeyCommand::Rotate => {
            let key = maintenance.rotate_key().await?;
            report(format_args!("added the key {}, which signs from {} on", key.kid, utc(key.active_from)));
        }
        KeyCommand::Remove { kid } => {
            maintenance.remove_key(&kid).await?;
            report(format_args!("removed the key {kid}"));
        }
    }
    Ok(())
}

/// A Unix time for people, such as `2026-07-03T14:05:09Z`.
fn utc(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn told(done: &Imported) -> Result<(), CommandError> {
    for name in &done.added {
        report(format_args!("added {name:?}"));
    }
    for (name, problem) in &done.discouraged {
        report(format_args!(
            "warning: {name:?} may log in, but a new user could not have this name: {problem}"
        ));
    }
    for name in &done.present {
        report(format_args!("left {name:?} as it is: there is such a user already"));
    }
    for (name, why) in &done.unusable {
        report(format_args!("left out the user {name}: {why}"));
    }
    if done.revoked_tokens > 0 {
        report(format_args!(
            "left out {} revoked tokens: the old tokens are not valid here anyway",
            done.revoked_tokens
        ));
    }
    match done.unusable.len() {
        0 => Ok(()),
        some => Err(CommandError::NotAll(some)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_time_is_printed_as_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
