//! The commands of `muse-auth` for its operator.

mod api_key;
mod prompt;
mod quota;
mod usage;
mod user;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use chrono::{DateTime, SecondsFormat};
use clap::Subcommand;
use muse_auth::{AdminOps, AuthError, BackupError, Config, ImportReport};
use muse_telemetry::with_causes;
use tokio::runtime::Runtime;

use api_key::ApiKeyCommand;
use prompt::PromptError;
use usage::UsageArgs;
use user::UserCommand;

/// Commands of the operator, also while the service runs.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// Manage users.
    #[command(subcommand)]
    User(UserCommand),
    /// Manage the signing keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Manage API keys, which are credentials of programs.
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Print the usage per user and API key.
    Usage(UsageArgs),
    /// Import the users of muse_as_service 1.x, with their passwords.
    Import {
        /// Its SQLite file, app.db.
        file: PathBuf,
    },
    /// Copy the database (SQLite) to a new file.
    Backup {
        /// The new file.
        file: PathBuf,
    },
}

impl OperatorCommand {
    /// Whether it is allowed before the first start of the service. Other commands would create an
    /// empty database for a mistyped path.
    fn may_create_database(&self) -> bool {
        matches!(self, Self::Import { .. } | Self::User(UserCommand::Add { .. }))
    }
}

/// Commands for signing keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print the keys, one per line: the id, when it begins to sign, when the last token of a
    /// replaced key expires (UTC), and `signs` for the current one.
    List,
    /// Add a key, which is published at once and signs 5 seconds later. Tokens of the old key
    /// remain valid until they expire.
    Rotate,
    /// Remove a key. The tokens that it signed are no longer valid.
    Remove {
        /// The id of the key.
        // Base64url, which may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
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
    IncompleteImport(usize),
}

/// Executes a command, and prints its error to standard error.
pub(crate) fn run(command: OperatorCommand, config: Config) -> ExitCode {
    let outcome = Runtime::new().map_err(CommandError::Write).and_then(|runtime| {
        runtime.block_on(async {
            let operations = if command.may_create_database() {
                AdminOps::open(config).await?
            } else {
                AdminOps::open_existing(config).await?
            };
            let outcome = execute(command, &operations).await;
            operations.close().await;
            outcome
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(format_args!("error: {}", with_causes(&failure)));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line to standard error. A closed standard error does not fail the command.
fn report(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

async fn execute(command: OperatorCommand, operations: &AdminOps) -> Result<(), CommandError> {
    match command {
        OperatorCommand::User(command) => user::execute(command, &operations.users()?).await,
        OperatorCommand::Key(command) => execute_key(command, operations).await,
        OperatorCommand::ApiKey(command) => api_key::execute(command, &operations.api_keys()).await,
        OperatorCommand::Usage(args) => usage::execute(&args, &operations.usage()).await,
        OperatorCommand::Import { file } => report_import(&operations.import(&file).await?),
        OperatorCommand::Backup { file } => {
            operations.back_up(&file).await?;
            report(format_args!("wrote {}", file.display()));
            Ok(())
        }
    }
}

async fn execute_key(command: KeyCommand, operations: &AdminOps) -> Result<(), CommandError> {
    match command {
        KeyCommand::List => {
            let mut out = io::stdout().lock();
            for key in operations.keys().await? {
                let until = key.retires_at.map_or_else(|| "-".to_owned(), utc);
                let signs = if key.signs { "\tsigns" } else { "" };
                writeln!(out, "{}\t{}\t{until}{signs}", key.kid, utc(key.active_from))?;
            }
            out.flush()?;
        }
        KeyCommand::Rotate => {
            let key = operations.rotate_key().await?;
            report(format_args!("added the key {}, which signs from {} on", key.kid, utc(key.active_from)));
        }
        KeyCommand::Remove { kid } => {
            operations.remove_key(&kid).await?;
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

fn report_import(import: &ImportReport) -> Result<(), CommandError> {
    for name in &import.added {
        report(format_args!("added {name:?}"));
    }
    for (name, problem) in &import.discouraged {
        report(format_args!(
            "warning: {name:?} may log in, but a new user could not have this name: {problem}"
        ));
    }
    for name in &import.present {
        report(format_args!("skipped {name:?}: there is such a user already"));
    }
    for (name, problem) in &import.rejected {
        report(format_args!("cannot import the user {name}: {problem}"));
    }
    if import.revoked_tokens > 0 {
        report(format_args!(
            "skipped {} revoked tokens: tokens of the old service are not valid here",
            import.revoked_tokens
        ));
    }
    match import.rejected.len() {
        0 => Ok(()),
        count => Err(CommandError::IncompleteImport(count)),
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
