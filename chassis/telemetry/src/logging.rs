//! Logs on standard error.

use std::{
    io::{self, IsTerminal, Write},
    process,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use clap::{Args, ValueEnum};
use prometheus::IntCounter;
use tracing_subscriber::EnvFilter;

use crate::{log_writer::LogWriter, panic_hook};

/// Timeout of the flush at the end of a program.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of the flush in a panic, after which the service may continue.
const BRIEF_TIMEOUT: Duration = Duration::from_millis(100);

/// Lines that were not written, in the whole process.
pub(crate) static DROPPED_LINES: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Lines of the log that were dropped because standard error was not read in time.";
    IntCounter::new("muse_log_lines_dropped_total", help).expect("its name and help are well-formed")
});

/// Set by [`LogArgs::init`].
static WRITER: OnceLock<Arc<LogWriter>> = OnceLock::new();

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
        let writer = LogWriter::start(io::stderr(), DROPPED_LINES.clone()).unwrap_or_else(|failure| {
            let _ = writeln!(io::stderr(), "error: cannot start the thread of the log: {failure}");
            process::exit(1)
        });
        let writer = Arc::clone(WRITER.get_or_init(|| writer));
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

/// Flushes the log, for at most a second. Call it at the end of a program.
pub fn flush_log() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_TIMEOUT);
    }
}

/// Flushes the log for at most 100 ms, or not at all while standard error is not read.
pub fn flush_brief() {
    if let Some(writer) = WRITER.get() {
        writer.flush_unless_stalled(BRIEF_TIMEOUT);
    }
}

/// Prints a text for the operator to standard error, outside the log. Neither blocks nor panics
/// after logging has started.
pub fn print_to_operator(text: &str) {
    let text = format!("{text}\n");
    let _ = match WRITER.get() {
        Some(writer) => (&**writer).write_all(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()),
    };
}
