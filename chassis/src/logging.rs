//! Logs on standard error.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::leaks;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Options of the log.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What is logged, as in `info` or `muse_gateway=debug,warn`. `access=warn` leaves out the requests.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = parse_filter, global = true)]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "pretty", global = true)]
    pub log_format: LogFormat,
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|refused| refused.to_string())
}

impl LogArgs {
    /// Starts logging, and keeps what users send out of it, however the program ends. To be called once, first of all.
    pub fn init(&self) {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&self.log_level))
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Pretty => builder.init(),
            LogFormat::Json => {
                builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
            }
        }
        leaks::prevent();
    }
}
