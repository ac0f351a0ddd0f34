//! The options of the log, and its start.

use std::{
    io::{self, IsTerminal, Write},
    process,
};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{log_output, panic_hook};

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Options of the log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of the log")]
pub struct LogArgs {
    /// Filter of the log: a level, or levels by target, such as `info` or
    /// `muse_gateway=debug,warn`. `access=warn` omits the access log.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = parse_filter, global = true)]
    pub log_level: String,
    /// Format of the log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "pretty", global = true)]
    pub log_format: LogFormat,
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl LogArgs {
    /// Starts logging, and installs the panic hook. Call it once, at the start of the program.
    ///
    /// A thread writes the lines, so that a slow or closed standard error neither blocks nor ends
    /// the service.
    pub fn init(&self) {
        let writer = log_output::start().unwrap_or_else(|failure| {
            let _ = writeln!(io::stderr(), "error: cannot start the thread of the log: {failure}");
            process::exit(1)
        });
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&self.log_level))
            .with_writer(writer)
            // They would be printed to standard error directly, with a panic if that fails.
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Pretty => builder.init(),
            LogFormat::Json => {
                builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
            }
        }
        panic_hook::install();
    }
}
