//! Requests to batches: one thread owns the model and runs whatever is waiting, up to a number of tokens at a time.
//!
//! There is no waiting window: an idle model starts at once with what is there, and while it is busy the next batch
//! gathers by itself. Sentences are concatenated, never padded to each other; only the total is rounded up, with one
//! dummy sentence, so that the kernels see few different shapes.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use muse_proto::{Error, Reason};
use tch::Device;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinError,
};
use tracing::error;

use crate::{
    model::{DIMENSION, Model, ModelError},
    model_dir::ModelDir,
    tokenizer::{BEGIN, END},
};

/// How the model is run.
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// Threads of the forward pass.
    pub threads: usize,
    /// Tokens that one forward pass takes at most (a longer sentence is a pass of its own).
    pub batch_tokens: usize,
    /// Tokens that may wait.
    pub queue_tokens: usize,
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
    #[error("cannot start the model's thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<JoinError> for BatcherError {
    fn from(_: JoinError) -> Self {
        Self::Ended
    }
}

/// Sentences, as token ids, ready to be run.
#[derive(Debug, Default)]
struct Ragged {
    ids: Vec<i64>,
    lengths: Vec<i64>,
}

impl Ragged {
    fn push(&mut self, sentence: &[u32]) {
        self.ids.extend(sentence.iter().map(|&id| i64::from(id)));
        self.lengths.push(sentence.len() as i64);
    }

    fn append(&mut self, other: &mut Self) {
        self.ids.append(&mut other.ids);
        self.lengths.append(&mut other.lengths);
    }
}

/// A part of a request, small enough for one pass.
struct Job {
    sentences: Ragged,
    reply: oneshot::Sender<Result<Pass, Error>>,
    /// Its place in the queue, given back when the job is done or dropped.
    _place: OwnedSemaphorePermit,
}

/// What a part gets from the forward pass that it was in.
struct Pass {
    /// The part's vectors, one after the other.
    vectors: Vec<f32>,
    started: Instant,
    took: Duration,
}

/// Vectors, and where the time went.
#[derive(Debug)]
pub struct Embedded {
    /// One for each sentence.
    pub vectors: Vec<Vec<f32>>,
    /// From the admission until the first of them was begun.
    pub queue: Duration,
    /// The forward passes that they were in, added up.
    pub forward: Duration,
}

/// Room in the queue.
#[derive(Debug)]
pub struct Place(OwnedSemaphorePermit);

/// A handle to the model's thread, which ends when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Batcher {
    jobs: mpsc::UnboundedSender<Job>,
    places: Arc<Semaphore>,
    batching: Batching,
}

impl Batcher {
    /// Loads the model on a thread of its own and runs it once in each shape that it will see.
    ///
    /// # Errors
    ///
    /// If the model cannot be loaded or does not run.
    pub fn start(directory: ModelDir, device: Device, batching: Batching) -> Result<Self, BatcherError> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("muse-model".to_owned()).spawn(move || {
            tch::set_num_threads(i32::try_from(batching.threads).unwrap_or(i32::MAX));
            match load_warm(&directory, device, batching.batch_tokens) {
                Ok(model) => {
                    let _ = started.send(Ok(()));
                    Runner { model, waiting, held_back: None, batch_tokens: batching.batch_tokens }.run();
                }
                Err(failure) => {
                    let _ = started.send(Err(failure));
                }
            }
        })?;
        outcome.recv().map_err(|_| BatcherError::Ended)??;
        let places = Arc::new(Semaphore::new(batching.queue_tokens));
        Ok(Self { jobs, places, batching })
    }

    /// Room for so many tokens, if there is.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if too much is waiting.
    pub fn admit(&self, tokens: usize) -> Result<Place, Error> {
        Arc::clone(&self.places).try_acquire_many_owned(permits(tokens)).map(Place).map_err(|_| {
            let most = self.batching.queue_tokens;
            Error::new(Reason::Overloaded, format!("more than {most} tokens are waiting; try again later"))
        })
    }

    /// Room for so many tokens, as soon as there is.
    ///
    /// # Errors
    ///
    /// [`Reason::Unavailable`] if the model has stopped.
    pub async fn wait(&self, tokens: usize) -> Result<Place, Error> {
        Arc::clone(&self.places).acquire_many_owned(permits(tokens)).await.map(Place).map_err(|_| stopped())
    }

    /// The vectors of `sentences` (token ids, [`BEGIN`] and [`END`] included), in their order. They take their place
    /// in the queue at once, all of it or nothing: requests that each held a part of the queue could all fail for want
    /// of the rest.
    ///
    /// Dropping the future gives up the place; what has not been started is never computed.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`] if the forward pass fails or `place` is too small.
    pub async fn embed(&self, Place(mut place): Place, sentences: &[Vec<u32>]) -> Result<Embedded, Error> {
        let admitted = Instant::now();
        let mut answers = Vec::new();
        for part in parts(sentences, self.batching.batch_tokens) {
            let (reply, answer) = oneshot::channel();
            let place = place
                .split(part.ids.len())
                .ok_or_else(|| Error::new(Reason::Internal, "the place in the queue is too small"))?;
            self.jobs.send(Job { sentences: part, reply, _place: place }).map_err(|_| stopped())?;
            answers.push(answer);
        }
        let mut vectors = Vec::with_capacity(sentences.len());
        let mut queue = None;
        let mut forward = Duration::ZERO;
        for answer in answers {
            let pass = answer.await.map_err(|_| stopped())??;
            vectors.extend(pass.vectors.chunks_exact(DIMENSION).map(<[f32]>::to_vec));
            // No two parts of a request fit into one pass: they would be one part.
            forward += pass.took;
            queue.get_or_insert(pass.started.duration_since(admitted));
        }
        Ok(Embedded { vectors, queue: queue.unwrap_or_default(), forward })
    }
}

fn permits(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn stopped() -> Error {
    Error::new(Reason::Unavailable, "the model has stopped")
}

/// Cuts a request into parts of at most `most` tokens; a longer sentence is a part of its own.
fn parts(sentences: &[Vec<u32>], most: usize) -> Vec<Ragged> {
    let mut parts: Vec<Ragged> = Vec::new();
    for sentence in sentences {
        match parts.last_mut().filter(|part| part.ids.len() + sentence.len() <= most) {
            Some(part) => part.push(sentence),
            None => {
                let mut part = Ragged::default();
                part.push(sentence);
                parts.push(part);
            }
        }
    }
    parts
}

/// The loop of the model's thread.
struct Runner {
    model: Model,
    waiting: mpsc::UnboundedReceiver<Job>,
    /// A job that did not fit into the last batch.
    held_back: Option<Job>,
    batch_tokens: usize,
}

impl Runner {
    fn run(mut self) {
        while let Some(first) = self.held_back.take().or_else(|| self.waiting.blocking_recv()) {
            let batch = self.gather(first);
            self.answer(batch);
        }
    }

    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut tokens = first.sentences.ids.len();
        let mut batch = vec![first];
        while tokens < self.batch_tokens {
            let Ok(next) = self.waiting.try_recv() else { break };
            if next.reply.is_closed() {
                continue;
            }
            if tokens + next.sentences.ids.len() > self.batch_tokens {
                self.held_back = Some(next);
                break;
            }
            tokens += next.sentences.ids.len();
            batch.push(next);
        }
        // The first one may have waited long enough for its caller to go.
        batch.retain(|job| !job.reply.is_closed());
        batch
    }

    fn answer(&self, mut batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let counts: Vec<usize> = batch.iter().map(|job| job.sentences.lengths.len()).collect();
        let mut all = Ragged::default();
        for job in &mut batch {
            all.append(&mut job.sentences);
        }
        let started = Instant::now();
        match forward(&self.model, all) {
            Ok(flat) => {
                let took = started.elapsed();
                let mut rest = flat.as_slice();
                for (job, count) in iter::zip(batch, counts) {
                    let (own, others) = rest.split_at(count * DIMENSION);
                    let _ = job.reply.send(Ok(Pass { vectors: own.to_vec(), started, took }));
                    rest = others;
                }
            }
            Err(failure) => {
                error!(%failure, "a forward pass failed");
                for job in batch {
                    let _ = job.reply.send(Err(Error::new(Reason::Internal, "the forward pass failed")));
                }
            }
        }
    }
}

/// Runs a batch whose total is rounded up to a bucket; the vector of the dummy sentence comes last and is dropped.
fn forward(model: &Model, mut batch: Ragged) -> Result<Vec<f32>, ModelError> {
    let sentences = batch.lengths.len();
    let tokens = batch.ids.len();
    let padding = bucket(tokens) - tokens;
    if padding > 0 {
        batch.ids.resize(tokens + padding, i64::from(END));
        batch.lengths.push(padding as i64);
    }
    let mut vectors = model.embed(&batch.ids, &batch.lengths)?;
    vectors.truncate(sentences * DIMENSION);
    Ok(vectors)
}

/// The number of tokens that a batch of `tokens` is rounded up to: small steps for small batches, where padding would
/// be felt, and at most 64.
fn bucket(tokens: usize) -> usize {
    let step = if tokens <= 64 {
        8
    } else if tokens <= 256 {
        32
    } else {
        64
    };
    tokens.next_multiple_of(step)
}

fn load_warm(directory: &ModelDir, device: Device, batch_tokens: usize) -> Result<Model, ModelError> {
    let model = Model::load(directory, device)?;
    let mut tokens = 2;
    while tokens <= batch_tokens {
        let mut batch = Ragged::default();
        batch.push(&[vec![BEGIN; bucket(tokens) - 1], vec![END]].concat());
        forward(&model, batch)?;
        tokens = bucket(tokens) + 1;
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_the_order_and_the_bound() {
        let sentences: Vec<Vec<u32>> = [3, 4, 9, 2, 2, 1].iter().map(|&n| vec![n; n as usize]).collect();
        let parts = parts(&sentences, 7);
        let lengths: Vec<Vec<i64>> = parts.iter().map(|part| part.lengths.clone()).collect();
        assert_eq!(lengths, [vec![3, 4], vec![9], vec![2, 2, 1]]);
        assert_eq!(parts[2].ids, [2, 2, 2, 2, 1]);
    }

    #[test]
    fn buckets_are_few_and_close() {
        let mut distinct: Vec<usize> = (1..=1024).map(bucket).collect();
        assert!((1..=1024).all(|tokens| (tokens..tokens + 64).contains(&bucket(tokens))));
        distinct.dedup();
        assert_eq!(distinct.len(), 8 + 6 + 12);
    }
}
