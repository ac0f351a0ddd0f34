//! The threads that run the model.

use std::{
    mem,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use muse_model::{
    batch::Batch,
    inference::{Model, VECTOR_BYTES, kernel},
    model_dir::{ModelDir, Precision},
};
use muse_proto::{Error, Reason};
use muse_server::allocator;
use tch::Device;
use tracing::{debug, error};

use super::{
    BatcherError, Batching,
    queue::{BatchResult, BatchSlice, Queue},
};
use crate::metrics::Passes;

/// Of the model's threads: nine tenths of a core go to a thread of the usual priority that wants it.
const NICENESS: i32 = 10;
/// What the heap retains beside a kernel: the 4.2 MB of a response of 2,048 vectors, and some.
const RETAINED_BESIDE_KERNEL: usize = 8 << 20;

/// Configures the heap to retain the memory that so many `passes` at a time use again and again. A kernel has its memory by
/// itself; libtorch allocates that of each step of a pass.
pub fn configure_allocator(precision: Precision, device: Device, passes: usize) {
    let bytes = kernel(precision, device).map_or(allocator::MOST_KEPT, |_| RETAINED_BESIDE_KERNEL);
    allocator::configure_allocator(passes, bytes);
}

/// The running threads. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Loads the model once and starts the threads that share it; each is warm when this returns.
    pub(crate) fn start(
        directory: &ModelDir,
        device: Device,
        batching: Batching,
        queue: &Arc<Queue>,
        passes: &Passes,
    ) -> Result<Self, BatcherError> {
        configure_allocator(directory.manifest().precision, device, batching.passes);
        let model = Arc::new(Model::load(directory, device)?);
        let (warm, outcomes) = mpsc::channel();
        let mut workers = Self { queue: Arc::clone(queue), threads: Vec::new() };
        for index in 0..batching.passes {
            // What does not divide evenly goes to the first ones.
            let threads = (batching.threads + batching.passes - 1 - index) / batching.passes;
            let (model, queue, warm) = (Arc::clone(&model), Arc::clone(queue), warm.clone());
            let worker = Worker { model, queue, batch_tokens: batching.batch_tokens, passes: passes.clone() };
            let thread = thread::Builder::new().name(format!("muse-model-{index}"));
            workers.threads.push(thread.spawn(move || {
                // A GPU must not wait for a thread that waits for a core.
                if device == Device::Cpu {
                    yield_to_messages();
                }
                // The setting is the thread's own.
                tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
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

/// Lets threads that move messages run first, of all processes on the machine: where refusals and probes wait for passes to end,
/// an overload looks like an outage. A pass has all that they leave.
fn yield_to_messages() {
    let thread = rustix::thread::gettid();
    if let Err(failure) = rustix::process::setpriority_process(Some(thread), NICENESS) {
        debug!(%failure, "the model's threads keep their priority");
    }
}

struct Worker {
    model: Arc<Model>,
    queue: Arc<Queue>,
    batch_tokens: usize,
    passes: Passes,
}

/// Closes the queue when a thread ends, be it by a panic: nobody must wait for what will not come.
struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Worker {
    /// Runs what must not be run for the first time by a request.
    fn warm_up(&self) -> Result<(), BatcherError> {
        let run = |tokens| {
            let batch = Batch::dummy(tokens);
            let began = Instant::now();
            self.model.embed_packed(&batch.ids, &batch.lengths)?;
            Ok::<_, BatcherError>(began.elapsed())
        };
        for tokens in self.model.sizes_to_warm(self.batch_tokens) {
            run(tokens)?;
        }
        // The first passes bring in memory and make kernels; this one shows how quick the model is.
        self.queue.drained(self.batch_tokens, run(self.batch_tokens)?);
        Ok(())
    }

    fn run(&self) {
        let _closing = Closing(&self.queue);
        loop {
            let (free_since, has_work) = (Instant::now(), self.queue.tokens() > 0);
            let Some(parts) = self.queue.take(self.batch_tokens) else { break };
            // Under load, the time between two passes belongs to what a pass takes.
            self.answer(parts, if has_work { free_since } else { Instant::now() });
        }
    }

    fn count(&self, parts: &[BatchSlice], tokens: usize, took: Duration) {
        let Passes { seconds, tokens: per_pass, fill, sentences_done, tokens_done } = &self.passes;
        seconds.observe(took.as_secs_f64());
        per_pass.observe(tokens as f64);
        fill.observe(tokens as f64 / self.batch_tokens as f64);
        sentences_done.inc_by(parts.iter().map(|part| part.range.len() as u64).sum());
        tokens_done.inc_by(tokens as u64);
    }

    /// Runs a pass. `free_since` is when the thread began to work for it.
    fn answer(&self, parts: Vec<BatchSlice>, free_since: Instant) {
        let mut batch = Batch::default();
        for part in &parts {
            batch.append(&part.sentences, part.range.clone());
        }
        let tokens = batch.ids.len();
        self.model.round_up_shape(&mut batch);
        let began = Instant::now();
        match self.model.embed_packed(&batch.ids, &batch.lengths) {
            Ok(mut vectors) => {
                let ended = Instant::now();
                // A small pass has the costs of a pass for few tokens: it does not show what the model can do.
                if 2 * tokens >= self.batch_tokens {
                    self.queue.drained(tokens, ended - free_since);
                }
                self.count(&parts, tokens, ended - began);
                // What is left at the end is the dummy sentence's, if there is one.
                for BatchSlice { range, done, .. } in parts {
                    let vectors = vectors.split_to(range.len() * VECTOR_BYTES);
                    // Its caller may have gone.
                    let _ = done.unbounded_send(Ok(BatchResult { range, vectors, began, ended }));
                }
            }
            Err(failure) => {
                error!(%failure, "a forward pass failed");
                for part in parts {
                    let _ = part
                        .done
                        .unbounded_send(Err(Error::new(Reason::Internal, "the forward pass failed")));
                }
            }
        }
    }
}
