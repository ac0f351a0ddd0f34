//! The forward pass alone, in this process: what the service is compared with.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Parser;
use muse_embedder::{
    Config,
    model::Model,
    model_dir::ModelDir,
    tokenizer::{END, Tokenizer},
};
use tch::Device;

use crate::workload::Texts;

/// Batch totals are rounded up to a multiple of this, as those of the service are: the forward pass is compared with at its
/// best, and few shapes are better than many.
const BUCKET: usize = 64;

/// Multiply-adds of a token: the projections, and two layers over windows of each of three widths.
const TOKEN_MACS: usize = 512 * 768 + 2 * (2 + 3 + 5) * 256 * 256;
/// Multiply-adds of a sentence: the dense layer on the sum of its tokens, and the last four with their residuals.
const SENTENCE_MACS: usize = 1280 * 512 + 512 * (2 * 320) + 320 * 320 + 2 * 320 * 512 + 512 * 512;

/// Sentences, one after the other, cut by the lengths.
#[derive(Debug, Default)]
struct Batch {
    ids: Vec<i64>,
    lengths: Vec<i64>,
    /// How many of the sentences are not there for the shape alone.
    sentences: usize,
}

/// What one second of the forward pass does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Sentences a second.
    pub(crate) sentences: f64,
    /// Floating-point operations a second that the answers needed.
    pub(crate) flops: f64,
}

/// The model, and full batches for it.
pub(crate) struct Forward {
    model: Model,
    batch_tokens: usize,
}

impl Forward {
    /// Loads the model, for as many threads and batches as large as the service's own.
    pub(crate) fn load(directory: &ModelDir) -> Self {
        // The environment's settings count here as they do for the programs.
        let config =
            Config::parse_from([Path::new("muse-embedder"), Path::new("--model-dir"), Path::new(".")]);
        tch::set_num_threads(i32::try_from(config.threads).expect("as many cores as that there are not"));
        Self {
            model: Model::load(directory, Device::Cpu).expect("the model loads"),
            batch_tokens: config.batch_tokens,
        }
    }

    /// Runs full batches of the sentences over and over.
    pub(crate) fn rate(&self, texts: &Texts, duration: Duration) -> Rate {
        let batches = self.batches(texts);
        // Each shape once: kernels are made for it.
        for batch in &batches {
            self.run(batch);
        }
        let (started, mut sentences, mut tokens) = (Instant::now(), 0, 0);
        'measure: loop {
            for batch in &batches {
                self.run(batch);
                sentences += batch.sentences;
                tokens += batch.lengths[..batch.sentences].iter().sum::<i64>() as usize;
                if started.elapsed() >= duration {
                    break 'measure;
                }
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let flops = 2.0 * (tokens * TOKEN_MACS + sentences * SENTENCE_MACS) as f64;
        Rate { sentences: sentences as f64 / seconds, flops: flops / seconds }
    }

    /// How long the pass over one sentence takes, each of several times.
    pub(crate) fn alone(&self, ids: &[i64], times: usize) -> Vec<Duration> {
        let batch = Batch { ids: ids.to_vec(), lengths: vec![ids.len() as i64], sentences: 1 };
        let once = || {
            let started = Instant::now();
            self.run(&batch);
            started.elapsed()
        };
        once();
        (0..times).map(|_| once()).collect()
    }

    fn run(&self, batch: &Batch) {
        self.model.embed(&batch.ids, &batch.lengths).expect("the forward pass runs");
    }

    fn batches(&self, texts: &Texts) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for ids in &texts.ids {
            let room = |batch: &&mut Batch| batch.ids.len() + ids.len() <= self.batch_tokens;
            match batches.last_mut().filter(room) {
                Some(batch) => batch.push(ids),
                None => {
                    batches.push(Batch::default());
                    batches.last_mut().expect("one was just added").push(ids);
                }
            }
        }
        for batch in &mut batches {
            batch.fill();
        }
        batches
    }
}

impl Batch {
    fn push(&mut self, ids: &[i64]) {
        self.ids.extend(ids);
        self.lengths.push(ids.len() as i64);
        self.sentences += 1;
    }

    fn fill(&mut self) {
        let missing = self.ids.len().next_multiple_of(BUCKET) - self.ids.len();
        if missing > 0 {
            self.ids.extend(std::iter::repeat_n(i64::from(END), missing));
            self.lengths.push(missing as i64);
        }
    }
}

/// The directory and its tokenizer.
pub(crate) fn open(directory: &Path) -> (ModelDir, Tokenizer) {
    let directory = ModelDir::open(directory).expect("a model converted by `muse-models convert`");
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes()).expect("its tokenizer");
    (directory, tokenizer)
}
