//! Batches of sentences: a few threads run the model on queued requests, up to a number of tokens
//! per forward pass.
//!
//! There is no batching window: an idle model starts at once; while it is busy the next batch
//! accumulates. The [`queue`] decides whose sentences a pass takes when a thread is free, not
//! before.
//!
//! On a CPU each thread runs passes of its own on one core, instead of one pass on all cores.
//! Threads of one pass wait for each other at the end of each kernel, which costs the more the more
//! other work the cores have.

mod admission;
mod fair_queue;
mod flow;
pub mod queue;
mod round_robin;
mod share;
mod throughput;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use muse_model::{
    inference::{Model, ModelError, VECTOR_BYTES},
    model_dir::ModelDir,
    precision::PrecisionOption,
    selection::{self, Selection},
    sentences::TokenizedSentences,
    tokenizer::MARKS,
};
use muse_proto::{Error, v1::Embedding};
use muse_telemetry::metrics::{Histogram, Metrics};
use tch::Device;
use tokio::task::JoinError;

use crate::{metrics::EmbedderMetrics, vector_encoding::VectorEncoding};
pub use queue::{FlowKey, ServiceClass, UserName};
use queue::{PendingRequest, Queue};
use worker::Workers;
pub use worker::configure_allocator;

/// How the model is run.
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// Cores of the forward passes, all of them together.
    pub threads: usize,
    /// Passes that run at the same time.
    pub passes: usize,
    /// The most tokens of a forward pass; a longer sentence is a pass of its own.
    pub batch_tokens: usize,
    /// Tokens that may wait; one user may have at most half of them.
    pub queue_tokens: usize,
    /// The maximum queueing time of a request without a deadline.
    pub max_wait: Duration,
}

impl Batching {
    /// The most tokens that a request can have.
    #[must_use]
    pub fn largest_request(&self) -> usize {
        Queue::largest_request(self.queue_tokens)
    }

    /// Loads the model in the precision of an option, which `auto` measures with the cores of a
    /// pass.
    ///
    /// # Errors
    ///
    /// If the model cannot be loaded.
    pub fn select(
        &self,
        directory: &ModelDir,
        device: Device,
        option: PrecisionOption,
    ) -> Result<Selection, BatcherError> {
        self.set_threads(0);
        // A quarter of a full pass: some milliseconds on a core.
        Ok(selection::load(directory, device, option, self.batch_tokens / 4 + 1)?)
    }

    /// Sets the number of cores of the passes of this thread, the one with this index.
    fn set_threads(&self, index: usize) {
        // The first ones get the remainder.
        let threads = (self.threads + self.passes - 1 - index) / self.passes;
        // libtorch has this setting per thread.
        tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    }
}

/// Why the model did not start.
#[derive(Debug, thiserror::Error)]
pub enum BatcherError {
    /// Loading or running it failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A thread ended while loading.
    #[error("the model's thread ended while loading")]
    Ended,
    /// The operating system cannot create a thread.
    #[error("cannot start the model's threads: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<JoinError> for BatcherError {
    fn from(_: JoinError) -> Self {
        Self::Ended
    }
}

/// Vectors, and the times that they took.
#[derive(Debug)]
pub struct Embedded {
    /// One for each sentence.
    pub embeddings: Vec<Embedding>,
    /// From admission to the start of the first pass.
    pub queue: Duration,
    /// From then to the end of the last pass.
    pub forward: Duration,
}

/// A handle to the queue and the model threads, which end when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Batcher {
    queue: Arc<Queue>,
    queue_seconds: Histogram,
    /// Closes the queue when the last handle is dropped.
    _workers: Arc<Workers>,
}

impl Batcher {
    /// Warms the model: runs it once in each shape of a batch.
    ///
    /// # Errors
    ///
    /// If the model does not run.
    pub fn start(model: Model, batching: Batching, metrics: &EmbedderMetrics) -> Result<Self, BatcherError> {
        let Batching { queue_tokens, max_wait, passes, .. } = batching;
        let queue = Arc::new(Queue::new(queue_tokens, max_wait, passes, metrics.rejections.clone()));
        let workers = Workers::start(model, batching, &queue, &metrics.passes)?;
        Ok(Self { queue, queue_seconds: metrics.queue.clone(), _workers: Arc::new(workers) })
    }

    /// Adds the length and capacity of the queue to the service's metrics.
    pub(crate) fn register_metrics(&self, metrics: &Metrics) {
        let (queued, capacity) = (self.queue_reader(), self.queue.capacity() as f64);
        metrics.pulled_gauge("muse_queue_tokens", "Tokens that wait for a forward pass.", move || {
            queued() as f64
        });
        metrics.pulled_gauge(
            "muse_queue_capacity_tokens",
            "Tokens that may wait for a forward pass.",
            move || capacity,
        );
    }

    /// The number of tokens that wait for a forward pass.
    pub(crate) fn queued_tokens(&self) -> usize {
        self.queue.tokens()
    }

    /// Reads [`Batcher::queued_tokens`], and does not keep the model running.
    pub(crate) fn queue_reader(&self) -> impl Fn() -> usize + Send + use<> {
        let queue = Arc::downgrade(&self.queue);
        move || queue.upgrade().map_or(0, |queue| queue.tokens())
    }

    /// Rejects a request of about so many tokens before it is decoded, if it would not be admitted
    /// now.
    ///
    /// # Errors
    ///
    /// Those of [`Batcher::embed`].
    pub(crate) fn check(
        &self,
        flow: &FlowKey,
        estimated_tokens: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        self.queue.check(flow, estimated_tokens, deadline)
    }

    /// The vectors of `sentences`, in their order, in the requested encoding. `estimated_tokens`
    /// is that of [`Batcher::check`], and `deadline` is the caller's.
    ///
    /// Dropping the future removes the request from the queue; sentences that no pass has taken are
    /// not computed.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`](muse_proto::Reason) if the request is not admitted (see
    /// [`admission`]), or [`Reason::Internal`](muse_proto::Reason) if the forward pass fails.
    pub(crate) async fn embed(
        &self,
        flow: &FlowKey,
        sentences: TokenizedSentences,
        estimated_tokens: usize,
        encoding: VectorEncoding,
        deadline: Option<Instant>,
    ) -> Result<Embedded, Error> {
        let sentences = Arc::new(sentences);
        let pending = self.queue.push(flow, Arc::clone(&sentences), estimated_tokens, deadline)?;
        collect(pending, &sentences, encoding, &self.queue_seconds).await
    }

    /// The vector of an item of a stream. The outer future ends when the item is in the queue.
    ///
    /// # Errors
    ///
    /// [`Reason::Unavailable`](muse_proto::Reason) if the model has stopped; the inner future's are
    /// those of [`Batcher::embed`].
    pub(crate) async fn embed_item(
        &self,
        flow: &FlowKey,
        sentence: TokenizedSentences,
    ) -> Result<impl Future<Output = Result<Embedded, Error>> + Send + use<>, Error> {
        let sentence = Arc::new(sentence);
        let pending = self.queue.push_item(flow, Arc::clone(&sentence)).await?;
        let queue_seconds = self.queue_seconds.clone();
        Ok(async move { collect(pending, &sentence, VectorEncoding::DEFAULT, &queue_seconds).await })
    }
}

/// Collects the results of a request. Its passes may end in another order than they began.
async fn collect(
    mut pending: PendingRequest,
    sentences: &TokenizedSentences,
    encoding: VectorEncoding,
    queue_seconds: &Histogram,
) -> Result<Embedded, Error> {
    let admitted = Instant::now();
    let mut embeddings: Vec<Embedding> = sentences
        .lengths()
        .map(|length| Embedding { token_count: length as u32 - MARKS, ..Embedding::default() })
        .collect();
    let (mut began, mut ended) = (None, admitted);
    while let Some(result) = pending.next().await {
        let result = result?;
        began = Some(began.map_or(result.began, |first: Instant| first.min(result.began)));
        ended = ended.max(result.ended);
        let mut vectors = result.vectors;
        for embedding in &mut embeddings[result.range] {
            encoding.set(embedding, vectors.split_to(VECTOR_BYTES));
        }
    }
    let began = began.unwrap_or(admitted);
    let queue = began.saturating_duration_since(admitted);
    queue_seconds.observe(queue.as_secs_f64());
    Ok(Embedded { embeddings, queue, forward: ended.saturating_duration_since(began) })
}
