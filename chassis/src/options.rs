//! Options that are well formed but cannot be.

use std::process::ExitCode;

use crate::{EXIT_USAGE, flush_log, print_to_operator};

/// An option that is well formed but cannot be. The text names the option, and never its value where that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for '{option}': {problem}")]
pub struct BadOption {
    option: &'static str,
    problem: String,
}

impl BadOption {
    /// `option`, for what is wrong with it.
    pub fn new(option: &'static str, problem: impl Into<String>) -> Self {
        Self { option, problem: problem.into() }
    }

    /// Says so, as for an option that cannot be read, and gives the status to end with.
    #[must_use]
    pub fn usage(&self) -> ExitCode {
        print_to_operator(&format!("error: {self}"));
        flush_log();
        ExitCode::from(EXIT_USAGE)
    }
}
