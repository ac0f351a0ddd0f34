//! An environment variable that is set but empty is treated as unset, so that compose files and
//! units can pass variables that may have no value (`${MUSE_PRECISION:-}`).

use std::{env, ffi::OsStr};

use clap::{Arg, Command, builder::Resettable};

/// The command, with options that do not read variables which are empty.
pub(crate) fn ignore_empty_variables(command: Command) -> Command {
    command.mut_args(ignore_if_empty).mut_subcommands(ignore_empty_variables)
}

fn ignore_if_empty(option: Arg) -> Arg {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    if option.get_env().is_some_and(is_empty) { option.env(Resettable::Reset) } else { option }
}
