//! Standard error of the process: the log, and texts for the operator.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use prometheus::IntCounter;

use crate::log_writer::LogWriter;

/// Timeout of the flush at the end of a program.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of the flush in a panic, after which the service may continue.
const BRIEF_TIMEOUT: Duration = Duration::from_millis(100);

/// Lines that were not written, in the whole process.
pub(crate) static DROPPED_LINES: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Lines of the log that were dropped because standard error was not read in time.";
    IntCounter::new("muse_log_lines_dropped_total", help).expect("its name and help are well-formed")
});

/// Set by [`start`].
static WRITER: OnceLock<Arc<LogWriter>> = OnceLock::new();

/// Starts the thread that writes the log, unless it runs.
pub(crate) fn start() -> io::Result<Arc<LogWriter>> {
    let writer = LogWriter::start(io::stderr(), DROPPED_LINES.clone())?;
    Ok(Arc::clone(WRITER.get_or_init(|| writer)))
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
