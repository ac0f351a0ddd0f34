//! Configuration errors: options that parse but are invalid, or contradict each other.

use std::process::ExitCode;

use muse_telemetry::{flush_log, print_to_operator};

use crate::EXIT_USAGE;

/// An option that parses but is invalid. The text contains the name of the option, and never its
/// value if that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for '{option}': {problem}")]
pub struct ConfigError {
    option: &'static str,
    problem: String,
}

impl ConfigError {
    /// An error of `option`, with its cause.
    pub fn new(option: &'static str, problem: impl Into<String>) -> Self {
        Self { option, problem: problem.into() }
    }

    /// Prints the error, as for an option that does not parse, and returns the exit status.
    #[must_use]
    pub fn usage(&self) -> ExitCode {
        print_to_operator(&format!("error: {self}"));
        flush_log();
        ExitCode::from(EXIT_USAGE)
    }
}
