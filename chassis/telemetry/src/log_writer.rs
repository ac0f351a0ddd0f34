//! A bounded, non-blocking writer for log lines: callers append to a buffer in memory, and a thread
//! writes it out.
//!
//! Own code, because `tracing-appender` bounds its buffer in lines but not in bytes, reports its
//! dropped lines nowhere, and prints to standard error, which blocks, when it shuts down while its
//! output is full.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus::IntCounter;
use tracing::warn;

/// Capacity of the buffer, in bytes. The thread may be writing as many more.
const BUFFER_BYTES: usize = 1 << 20;
/// Maximum bytes of a line; longer lines are truncated.
const LINE_BYTES: usize = 64 << 10;
/// Ends a truncated line.
const TRUNCATED: &[u8] = b" [truncated]\n";
/// Pause between two writes: under load, lines are written together, which saves most system calls
/// and wake-ups.
const BETWEEN_WRITES: Duration = Duration::from_millis(20);
/// Pause before a retry if another process has made the output non-blocking.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Appends each `write` as one line, or drops and counts it if the buffer is full. Never blocks and
/// never fails.
#[derive(Debug)]
pub(crate) struct LogWriter {
    state: Mutex<State>,
    /// The buffer is not empty.
    filled: Condvar,
    /// A buffer was written.
    written: Condvar,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    lines: u64,
    /// The thread waits for a line.
    idle: bool,
    /// The thread has taken a buffer and has not written all of it.
    writing: bool,
    /// A flush timed out, and nothing was written since.
    stalled: bool,
}

impl LogWriter {
    /// Starts the thread, which writes to `output`. `dropped` counts the lines that were not
    /// written.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn start(output: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped,
        });
        let thread = Arc::clone(&writer);
        thread::Builder::new().name("log".to_owned()).spawn(move || thread.write_buffers(output))?;
        Ok(writer)
    }

    /// Waits until all lines are written, but no longer than `within`.
    pub(crate) fn flush(&self, within: Duration) {
        let waiting = |state: &mut State| state.writing || !state.buffer.is_empty();
        let waited = self.written.wait_timeout_while(self.state(), within, waiting);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            state.stalled = true;
        }
    }

    /// As [`flush`](Self::flush), but returns at once while the output is known to be stalled.
    pub(crate) fn flush_unless_stalled(&self, within: Duration) {
        if !self.state().stalled {
            self.flush(within);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let (line, end) = match line.get(..LINE_BYTES - TRUNCATED.len()) {
            Some(start) if line.len() > LINE_BYTES => (truncate(start), TRUNCATED),
            _ => (line, &[][..]),
        };
        let mut state = self.state();
        if state.buffer.len() + line.len() + end.len() > BUFFER_BYTES {
            drop(state);
            self.dropped.inc();
            return;
        }
        state.buffer.extend_from_slice(line);
        state.buffer.extend_from_slice(end);
        state.lines += 1;
        // Each notification is a system call.
        let is_idle = mem::take(&mut state.idle);
        drop(state);
        if is_idle {
            self.filled.notify_one();
        }
    }

    fn write_buffers(&self, mut output: impl Write) {
        let mut buffer = Vec::new();
        let mut reported = 0;
        loop {
            let empty = |state: &mut State| {
                state.idle = state.buffer.is_empty();
                state.idle
            };
            let waited = self.filled.wait_while(self.state(), empty);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut state.buffer, &mut buffer);
            let lines = mem::take(&mut state.lines);
            state.writing = true;
            drop(state);

            let outcome = write_all(&mut output, &buffer);
            buffer.clear();
            if outcome.is_err() {
                // For example, the reader of the pipe has exited. The error cannot be logged.
                self.dropped.inc_by(lines);
            }
            let mut state = self.state();
            state.writing = false;
            state.stalled &= outcome.is_err();
            // Otherwise the report would be dropped, too.
            let has_room = state.buffer.len() + LINE_BYTES <= BUFFER_BYTES;
            drop(state);
            self.written.notify_all();

            let dropped = self.dropped.get();
            if outcome.is_ok() && has_room && dropped > reported {
                warn!(lines = dropped - reported, "lines of the log were dropped");
                reported = dropped;
            }
            thread::sleep(BETWEEN_WRITES);
        }
    }
}

impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(output: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(failure) if failure.kind() == io::ErrorKind::Interrupted => (),
            Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Removes an incomplete character from the end.
fn truncate(start: &[u8]) -> &[u8] {
    match str::from_utf8(start) {
        Ok(_) => start,
        Err(broken) if broken.error_len().is_none() => &start[..broken.valid_up_to()],
        Err(_) => start,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{PipeReader, Read, pipe},
        time::Instant,
    };

    use super::*;

    const LONG_ENOUGH: Duration = Duration::from_secs(60);

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "Dropped lines.").unwrap()
    }

    fn into_pipe() -> (PipeReader, Arc<LogWriter>) {
        let (reader, output) = pipe().unwrap();
        (reader, LogWriter::start(output, counter()).unwrap())
    }

    #[test]
    fn full_pipe_drops_lines_and_counts_them() {
        let (mut reader, writer) = into_pipe();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let started = Instant::now();
        // The capacity of the pipe and of both buffers is less than 4 MB.
        for _ in 0..4_000 {
            (&*writer).write_all(&line).unwrap();
        }
        assert!(writer.dropped.get() > 1_000, "{}", writer.dropped.get());
        writer.flush(Duration::from_millis(50));
        writer.flush_unless_stalled(LONG_ENOUGH);
        assert!(started.elapsed() < LONG_ENOUGH);
        assert!(writer.state().buffer.len() <= BUFFER_BYTES);

        let written = 4_000 - writer.dropped.get();
        let mut text = vec![0; usize::try_from(written).unwrap() * line.len()];
        reader.read_exact(&mut text).unwrap();
        assert!(text.chunks(line.len()).all(|found| found == line), "a line is not whole");
        writer.flush(LONG_ENOUGH);
        assert!(!writer.state().stalled);
    }

    #[test]
    fn writer_recovers_from_a_broken_pipe() {
        /// Fails until it contains a buffer.
        struct Broken(Arc<Mutex<Option<Vec<u8>>>>);
        impl Write for Broken {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match &mut *self.0.lock().unwrap() {
                    None => Err(io::ErrorKind::BrokenPipe.into()),
                    Some(text) => text.write(bytes),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let text = Arc::new(Mutex::new(None));
        let writer = LogWriter::start(Broken(Arc::clone(&text)), counter()).unwrap();
        (&*writer).write_all(b"lost\n").unwrap();
        writer.flush(LONG_ENOUGH);
        assert_eq!(writer.dropped.get(), 1);
        *text.lock().unwrap() = Some(Vec::new());
        (&*writer).write_all(b"found\n").unwrap();
        writer.flush(LONG_ENOUGH);
        assert_eq!(text.lock().unwrap().as_deref(), Some(&b"found\n"[..]));
    }

    #[test]
    fn closed_pipe_does_not_stop_the_writer() {
        let (reader, writer) = into_pipe();
        drop(reader);
        for expected in 1..=3 {
            (&*writer).write_all(b"a line\n").unwrap();
            writer.flush(LONG_ENOUGH);
            assert_eq!(writer.dropped.get(), expected);
        }
    }

    #[test]
    fn long_line_is_truncated_at_a_character() {
        let (mut reader, writer) = into_pipe();
        let line = format!("x{}\n", "é".repeat(LINE_BYTES));
        (&*writer).write_all(line.as_bytes()).unwrap();
        (&*writer).write_all(b"next\n").unwrap();
        let mut text = vec![0; LINE_BYTES];
        let mut rest = Vec::new();
        while !rest.ends_with(b"next\n") {
            let count = reader.read(&mut text).unwrap();
            rest.extend_from_slice(&text[..count]);
        }
        let text = String::from_utf8(rest).unwrap();
        let (first, _) = text.split_once('\n').unwrap();
        assert!(first.len() < LINE_BYTES && first.ends_with("é [truncated]"), "{} bytes", first.len());
    }
}
