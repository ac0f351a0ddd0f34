//! The threads that run forward passes.

use std::{
    mem,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use muse_model::{
    batch::Batch,
    inference::{Model, VECTOR_BYTES},
};
use muse_proto::{Error, Reason};
use muse_server::allocator;
use tch::Device;
use tokio::runtime::Handle;
use tracing::{debug, error};

use super::{
    BatcherError, Batching,
    fair_queue::ResultSender,
    queue::{BatchResult, BatchSlice, Queue},
};
use crate::metrics::PassMetrics;

/// Of the model threads: a thread of the usual priority that competes for the core gets nine tenths
/// of it.
const NICENESS: i32 = 10;
/// What the heap retains beside a kernel: the 4.2 MB of a response of 2,048 vectors, and some.
const RETAINED_BESIDE_KERNEL: usize = 8 << 20;

/// Configures the heap to retain the memory that so many `passes` of the model at a time use again
/// and again. A kernel has its memory by itself; libtorch allocates that of each step of a pass.
pub fn configure_allocator(model: &Model, passes: usize) {
    let bytes = model.kernel().map_or(allocator::MAX_RETAINED_BYTES, |_| RETAINED_BESIDE_KERNEL);
    allocator::configure_allocator(passes, bytes);
}

/// The model threads. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads that share the model, within an async runtime. Each is warm when this
    /// returns.
    pub(crate) fn start(
        model: Model,
        batching: Batching,
        queue: &Arc<Queue>,
        metrics: &PassMetrics,
    ) -> Result<Self, BatcherError> {
        configure_allocator(&model, batching.passes);
        let (device, model) = (model.device(), Arc::new(model));
        let (warm, outcomes) = mpsc::channel();
        let mut workers = Self { queue: Arc::clone(queue), threads: Vec::new() };
        for index in 0..batching.passes {
            let (model, queue, warm) = (Arc::clone(&model), Arc::clone(queue), warm.clone());
            let (batch_tokens, metrics) = (batching.batch_tokens, metrics.clone());
            let worker = Worker { model, queue, runtime: Handle::current(), batch_tokens, metrics };
            let thread = thread::Builder::new().name(format!("muse-model-{index}"));
            workers.threads.push(thread.spawn(move || {
                // A GPU must not wait for a thread without a core.
                if device == Device::Cpu {
                    lower_priority();
                }
                batching.set_threads(index);
                let warmed = worker.warm_up();
                let run = warmed.is_ok();
                let _ = warm.send(warmed);
                if run {
                    worker.run();
                }
            })?);
        }
        drop(warm);
        for _ in 0..batching.passes {
            outcomes.recv().map_err(|_| BatcherError::Ended)??;
        }
        allocator::trim();
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

/// Lowers the priority of this thread below that of I/O threads, of all processes on the machine:
/// if rejections and probes had to wait for passes, an overload would look like an outage.
fn lower_priority() {
    let thread = rustix::thread::gettid();
    if let Err(failure) = rustix::process::setpriority_process(Some(thread), NICENESS) {
        debug!(%failure, "cannot lower the priority of the model threads");
    }
}

struct Worker {
    model: Arc<Model>,
    queue: Arc<Queue>,
    /// Delivers the results.
    runtime: Handle,
    batch_tokens: usize,
    metrics: PassMetrics,
}

/// Closes the queue when a thread ends, also by a panic, so that no caller waits for a result that
/// never comes.
struct CloseOnDrop<'a>(&'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Worker {
    /// Warms the model, so that no request waits for the first pass of a shape.
    fn warm_up(&self) -> Result<(), BatcherError> {
        let run = |tokens| {
            let batch = Batch::dummy(tokens);
            let began = Instant::now();
            self.model.embed_packed(&batch.ids, &batch.lengths)?;
            Ok::<_, BatcherError>(began.elapsed())
        };
        for tokens in self.model.warm_up_sizes(self.batch_tokens) {
            run(tokens)?;
        }
        // The first passes allocate memory and create kernels; this one measures the throughput.
        self.queue.record_pass(self.batch_tokens, run(self.batch_tokens)?);
        Ok(())
    }

    fn run(&self) {
        let _close = CloseOnDrop(&self.queue);
        loop {
            let (free_since, has_work) = (Instant::now(), self.queue.tokens() > 0);
            let Some(slices) = self.queue.take(self.batch_tokens) else { break };
            // Under load, a pass takes the time between two passes, too.
            self.run_pass(slices, if has_work { free_since } else { Instant::now() });
        }
    }

    fn record_metrics(&self, slices: &[BatchSlice], tokens: usize, took: Duration) {
        let PassMetrics { seconds, tokens: per_pass, fill, sentences_done, tokens_done } = &self.metrics;
        seconds.observe(took.as_secs_f64());
        per_pass.observe(tokens as f64);
        fill.observe(tokens as f64 / self.batch_tokens as f64);
        sentences_done.inc_by(slices.iter().map(|slice| slice.range.len() as u64).sum());
        tokens_done.inc_by(tokens as u64);
    }

    /// Runs a pass, and sends the results. `free_since` is when the thread began to work for it.
    fn run_pass(&self, slices: Vec<BatchSlice>, free_since: Instant) {
        let mut batch = Batch::default();
        for slice in &slices {
            batch.append(&slice.sentences, slice.range.clone());
        }
        let tokens = batch.ids.len();
        self.model.round_up_shape(&mut batch);
        let began = Instant::now();
        let results = match self.model.embed_packed(&batch.ids, &batch.lengths) {
            Ok(mut vectors) => {
                let ended = Instant::now();
                // The throughput of a small pass is below that of the model, since each pass has
                // fixed costs.
                if 2 * tokens >= self.batch_tokens {
                    self.queue.record_pass(tokens, ended - free_since);
                }
                self.record_metrics(&slices, tokens, ended - began);
                // The vector of the dummy sentence, if there is one, is the last.
                let result = |BatchSlice { range, results, .. }| {
                    let vectors = vectors.split_to(range.len() * VECTOR_BYTES);
                    (results, Ok(BatchResult { range, vectors, began, ended }))
                };
                slices.into_iter().map(result).collect()
            }
            Err(failure) => {
                error!(%failure, "a forward pass failed");
                let failed = || Err(Error::new(Reason::Internal, "the forward pass failed"));
                slices.into_iter().map(|slice| (slice.results, failed())).collect()
            }
        };
        self.deliver(results);
    }

    /// Sends the results of a pass, all of them in one task of the async runtime. If this thread
    /// sent them, each would wake the thread of the runtime, which preempts this one and writes the
    /// responses one by one.
    fn deliver(&self, results: Vec<(ResultSender, Result<BatchResult, Error>)>) {
        self.runtime.spawn(async move {
            for (sender, result) in results {
                // The caller may have left.
                let _ = sender.unbounded_send(result);
            }
        });
    }
}
