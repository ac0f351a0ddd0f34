//! Poll durations: how long the threads of the async runtime run from one await to the next.
//!
//! tokio's hooks for it are unstable, so a separate build measures it (`make bench-polls`); other builds do not contain it. The unit
//! is processor time: a preempted thread does not delay others by itself.

use std::{cell::Cell, sync::LazyLock, time::Duration};

use muse_proto::blocking_runs;
use prometheus::{Histogram, HistogramOpts};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;

const SECONDS: &[f64] = &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01];

thread_local! {
    /// When the poll of this thread began, and how many blocking sections the thread had run by then.
    static BEGAN: Cell<(Duration, u64)> = const { Cell::new((Duration::ZERO, 0)) };
}

/// Of all runtimes of this process.
pub(crate) static POLLS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Processor time of one poll of a task, from one await to the next.";
    let options = HistogramOpts::new("muse_poll_seconds", help).buckets(SECONDS.to_vec());
    Histogram::with_opts(options).expect("the name and the buckets are well-formed")
});

/// Observes the polls of a runtime. A poll that runs a blocking section does not count: the thread's other tasks have moved.
pub fn observe(builder: &mut Builder) {
    builder.on_before_task_poll(|_| BEGAN.set((now(), blocking_runs())));
    builder.on_after_task_poll(|_| {
        let (began, asides) = BEGAN.get();
        if blocking_runs() == asides {
            POLLS.observe(now().saturating_sub(began).as_secs_f64());
        }
    });
}

/// Processor time of this thread.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
