//! An environment variable that is set but empty is treated as unset, so that compose files and
//! units can pass variables that may have no value (`${MUSE_PRECISION:-}`), except where the default
//! would be dangerous.

use std::{env, ffi::OsStr};

use clap::{Arg, Command, builder::Resettable};

/// Variables that are invalid if they are empty. A secret or a file that has become empty by mistake
/// must not be replaced by a new database, the default password, a random key, or weaker checks.
const MUST_HAVE_VALUES: [&str; 4] =
    ["ADMIN_PASSWORD_FILE", "AUTH_EXPOSED", "DATABASE_URL", "JWT_SECRET_KEY_FILE"];

/// The command, with options that do not read variables which are empty.
pub(crate) fn ignore_empty_variables(command: Command) -> Command {
    command.mut_args(ignore_if_empty).mut_subcommands(ignore_empty_variables)
}

fn ignore_if_empty(option: Arg) -> Arg {
    let is_unset = |name: &OsStr| {
        env::var_os(name).is_some_and(|value| value.is_empty())
            && MUST_HAVE_VALUES.iter().all(|other| name != *other)
    };
    if option.get_env().is_some_and(is_unset) { option.env(Resettable::Reset) } else { option }
}
