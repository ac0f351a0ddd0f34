//! The program `muse-auth`: the service, and the command line for its users.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use muse_auth::config::{BadOption, DatabaseArgs, ServiceArgs};
use muse_chassis::{EXIT_USAGE, LogArgs, parse_options};

use crate::cli::UserCommand;

/// The auth service of MUSE as Service: users, tokens, revocation.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service; what happens without a command, too.
    Serve,
    /// Manage the users, also while the service runs.
    #[command(subcommand)]
    User(UserCommand),
}

fn main() -> ExitCode {
    let mut options: Options = parse_options();
    // Migrations tell at each start that there are none. In front, so that the option has the last word.
    options.log.log_level.insert_str(0, "sea_orm_migration=warn,");
    options.log.init();
    let listen = options.service.listen;
    match options.command {
        None | Some(Command::Serve) => match options.service.config(&options.database) {
            Ok(config) => muse_chassis::serve("muse-auth", listen, |listener, shutdown| {
                muse_auth::run(config, listener, shutdown)
            }),
            Err(bad) => usage(&bad),
        },
        Some(Command::User(command)) => match options.database.path() {
            Ok(database) => cli::run(command, database),
            Err(bad) => usage(&bad),
        },
    }
}

fn usage(bad: &BadOption) -> ExitCode {
    eprintln!("error: {bad}");
    ExitCode::from(EXIT_USAGE)
}
