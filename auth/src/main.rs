//! The program `muse-auth`: the service, and the commands of its operator.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use muse_auth::config::{Args, Config};
use muse_server::{allocator, parse_service_options};
use muse_telemetry::LogArgs;

/// The auth service of MUSE as Service: users, tokens, revocation.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    args: Args,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service; the default without a command.
    Serve,
    #[command(flatten)]
    Operator(cli::OperatorCommand),
}

fn main() -> ExitCode {
    let mut program: Program = parse_service_options();
    // In front, so that the option overrides them: migrations log at each start that there are
    // none, and the audit log is written at any level.
    program.log.log_level.insert_str(0, "sea_orm_migration=warn,audit=info,");
    program.log.init();
    // Such as the memory of password hashes.
    allocator::return_large_blocks();
    let config = match Config::try_from(program.args) {
        Ok(config) => config,
        Err(error) => return error.usage(),
    };
    match program.command {
        None | Some(Command::Serve) => {
            muse_server::serve("muse-auth", config.addresses, |listeners, shutdown| {
                muse_auth::run(config, listeners, shutdown)
            })
        }
        Some(Command::Operator(command)) => cli::run(command, config),
    }
}
