//! Poll durations: processor time of the async runtime's threads from one await to the next.
//!
//! tokio's hooks for this are unstable, so only a separate build contains it (`make bench-polls`).
//! It measures processor time, because the time of a preempted thread depends on other processes.

use std::{cell::Cell, sync::LazyLock, time::Duration};

use muse_proto::blocking_runs;
use prometheus::{Histogram, HistogramOpts};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;

const SECONDS: &[f64] = &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01];

thread_local! {
    /// Processor time and the number of blocking sections of this thread at the start of its poll.
    static STARTED: Cell<(Duration, u64)> = const { Cell::new((Duration::ZERO, 0)) };
}

/// The polls of all runtimes of this process.
pub(crate) static POLLS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Processor time of one poll of a task, from one await to the next.";
    let options = HistogramOpts::new("muse_poll_seconds", help).buckets(SECONDS.to_vec());
    Histogram::with_opts(options).expect("the name and the buckets are well-formed")
});

/// Observes the polls of a runtime. A poll with a blocking section does not count: the thread's
/// other tasks moved to another thread.
pub fn observe(builder: &mut Builder) {
    builder.on_before_task_poll(|_| STARTED.set((now(), blocking_runs())));
    builder.on_after_task_poll(|_| {
        let (started, runs) = STARTED.get();
        if blocking_runs() == runs {
            POLLS.observe(now().saturating_sub(started).as_secs_f64());
        }
    });
}

/// Processor time of this thread.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
