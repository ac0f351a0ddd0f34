//! Requests to batches: a few threads run the model on whatever is waiting, up to a number of tokens at a time.
//!
//! There is no waiting window: an idle model starts at once with what is there, and while it is busy the next batch
//! gathers by itself. Whose sentences it is made of is decided in [`queue`], when a thread takes it and not before.
//!
//! On a CPU each thread runs passes of its own on one core, rather than all of them one pass together: they need not
//! wait for each other at the end of each kernel, which costs the more the more the cores are used for other things,
//! too.

mod fair_queue;
pub mod queue;
mod throughput;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use muse_model::{
    inference::{ModelError, VECTOR_BYTES},
    model_dir::ModelDir,
    sentences::Sentences,
    tokenizer::MARKS,
};
use muse_proto::{Error, v1::Embedding};
use muse_telemetry::metrics::{Histogram, Metrics};
use tch::Device;
use tokio::task::JoinError;

use crate::{dimensions::Dimensions, metrics::Work};
pub use queue::User;
use queue::{PendingRequest, Queue};
use worker::Workers;
pub use worker::configure_allocator;

/// How the model is run.
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// Cores of the forward passes, all of them together.
    pub threads: usize,
    /// Passes that run side by side.
    pub passes: usize,
    /// Tokens that one forward pass takes at most (a longer sentence is a pass of its own).
    pub batch_tokens: usize,
    /// Tokens that may wait; a user may hold half of them at most.
    pub queue_tokens: usize,
    /// How long a request without a deadline may wait.
    pub max_wait: Duration,
}

impl Batching {
    /// The most tokens that a request can have.
    #[must_use]
    pub fn largest_request(&self) -> usize {
        Queue::largest_request(self.queue_tokens)
    }
}

/// Why the model could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BatcherError {
    /// It cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The thread that loads it ended early.
    #[error("the model's thread ended while loading")]
    Ended,
    /// The operating system gives no thread.
    #[error("cannot start the model's threads: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<JoinError> for BatcherError {
    fn from(_: JoinError) -> Self {
        Self::Ended
    }
}

/// Vectors, and where the time went.
#[derive(Debug)]
pub struct Embedded {
    /// One for each sentence.
    pub embeddings: Vec<Embedding>,
    /// From the admission until the first of them was begun.
    pub queue: Duration,
    /// From then until the last was done.
    pub forward: Duration,
}

/// A handle to the queue and the threads behind it, which end when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Batcher {
    queue: Arc<Queue>,
    waited: Histogram,
    /// Closes the queue when the last handle goes.
    _workers: Arc<Workers>,
}

impl Batcher {
    /// Loads the model and runs it once in each shape that it will see.
    ///
    /// # Errors
    ///
    /// If the model cannot be loaded or does not run.
    pub fn start(
        directory: &ModelDir,
        device: Device,
        batching: Batching,
        work: &Work,
    ) -> Result<Self, BatcherError> {
        let Batching { queue_tokens, max_wait, passes, .. } = batching;
        let queue = Arc::new(Queue::new(queue_tokens, max_wait, passes, work.refused.clone()));
        let workers = Workers::start(directory, device, batching, &queue, &work.passes)?;
        Ok(Self { queue, waited: work.queue.clone(), _workers: Arc::new(workers) })
    }

    /// Tells in the service's metrics how much waits.
    pub(crate) fn register_metrics(&self, metrics: &Metrics) {
        let (queue, capacity) = (Arc::downgrade(&self.queue), self.queue.capacity() as f64);
        metrics.pulled_gauge("muse_queue_tokens", "Tokens that wait for a forward pass.", move || {
            queue.upgrade().map_or(0, |queue| queue.tokens()) as f64
        });
        metrics.pulled_gauge(
            "muse_queue_capacity_tokens",
            "Tokens that may wait for a forward pass.",
            move || capacity,
        );
    }

    /// Rejects a request of about so many tokens before it is decoded, if it would not be admitted now.
    ///
    /// # Errors
    ///
    /// Those of [`Batcher::embed`].
    pub(crate) fn check(&self, user: &str, tokens: usize, deadline: Option<Instant>) -> Result<(), Error> {
        self.queue.check(user, tokens, deadline)
    }

    /// The vectors of `sentences`, in their order, cut to `dimensions`. `deadline` is the caller's.
    ///
    /// Dropping the future gives up the place in the queue; what has not been started is never computed.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`](muse_proto::Reason) if the request is not admitted (see [`queue`]), or
    /// [`Reason::Internal`](muse_proto::Reason) if the forward pass fails.
    pub(crate) async fn embed(
        &self,
        user: &User,
        sentences: Sentences,
        dimensions: Dimensions,
        deadline: Option<Instant>,
    ) -> Result<Embedded, Error> {
        let sentences = Arc::new(sentences);
        let pending = self.queue.push(user, Arc::clone(&sentences), deadline)?;
        embedded(pending, &sentences, dimensions, &self.waited).await
    }

    /// The vector of an item of a stream. The outer future ends when the item is in the queue.
    ///
    /// # Errors
    ///
    /// [`Reason::Unavailable`](muse_proto::Reason) if the model has stopped; the inner future's are those of
    /// [`Batcher::embed`].
    pub(crate) async fn embed_item(
        &self,
        user: &User,
        sentence: Sentences,
    ) -> Result<impl Future<Output = Result<Embedded, Error>> + Send + use<>, Error> {
        let sentence = Arc::new(sentence);
        let pending = self.queue.push_item(user, Arc::clone(&sentence)).await?;
        let waited = self.waited.clone();
        Ok(async move { embedded(pending, &sentence, Dimensions::ALL, &waited).await })
    }
}

/// Gathers what the passes give of a request. They may end in another order than they began.
async fn embedded(
    mut pending: PendingRequest,
    sentences: &Sentences,
    dimensions: Dimensions,
    waited: &Histogram,
) -> Result<Embedded, Error> {
    let admitted = Instant::now();
    let mut embeddings: Vec<Embedding> = sentences
        .lengths()
        .map(|length| Embedding { packed: bytes::Bytes::new(), token_count: length as u32 - MARKS })
        .collect();
    let (mut began, mut ended) = (None, admitted);
    while let Some(done) = pending.next().await {
        let done = done?;
        began = Some(began.map_or(done.began, |first: Instant| first.min(done.began)));
        ended = ended.max(done.ended);
        let mut vectors = done.vectors;
        for embedding in &mut embeddings[done.range] {
            embedding.packed = dimensions.cut(vectors.split_to(VECTOR_BYTES));
        }
    }
    let began = began.unwrap_or(admitted);
    let queue = began.saturating_duration_since(admitted);
    waited.observe(queue.as_secs_f64());
    Ok(Embedded { embeddings, queue, forward: ended.saturating_duration_since(began) })
}
