//! The program `muse-auth`: the service, and the command line for its users.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use muse_auth::config::{DatabaseArgs, ServiceArgs};
use muse_server::{allocator, parse_service_options};
use muse_telemetry::LogArgs;

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
    #[command(flatten)]
    Other(cli::Command),
}

fn main() -> ExitCode {
    let mut options: Options = parse_service_options();
    // In front, so that the option has the last word: migrations tell at each start that there are none, and the
    // audit log is kept however little else is wanted.
    options.log.log_level.insert_str(0, "sea_orm_migration=warn,audit=info,");
    options.log.init();
    // Such as those in which passwords are hashed.
    allocator::return_large_blocks();
    let addresses = options.service.addresses();
    let config = match options.service.config(&options.database) {
        Ok(config) => config,
        Err(bad) => return bad.usage(),
    };
    match options.command {
        None | Some(Command::Serve) => muse_server::serve("muse-auth", addresses, |listeners, shutdown| {
            muse_auth::run(config, listeners, shutdown)
        }),
        Some(Command::Other(command)) => cli::run(command, config),
    }
}
