//! The forward pass alone, in this process: what the service is compared with.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use muse_embedder::{
    Args, Config,
    batcher::{Batching, configure_allocator},
};
use muse_model::{batch::Batch, inference::Model, model_dir::ModelDir, tokenizer::Tokenizer};
use muse_models::sentence_encoder;
use tch::Device;

use crate::workload::Texts;

/// What one second of the forward pass does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Sentences a second.
    pub(crate) sentences: f64,
    /// Floating-point operations a second that the answers needed.
    pub(crate) flops: f64,
}

/// The model, run as the service runs it: so many passes side by side, in batches of the same shapes.
pub(crate) struct Forward {
    model: Model,
    batching: Batching,
}

/// A full batch, and what of it is not there for the shape alone.
struct Full {
    batch: Batch,
    sentences: usize,
    tokens: usize,
}

impl Forward {
    /// Loads the model. The environment's settings count here as they do for the programs.
    pub(crate) fn load(directory: &ModelDir) -> Self {
        let args = Args::parse_from(["muse-embedder", "--model-dir", ".", "--device", "cpu"]);
        let Config { batching, .. } = args.try_into().expect("the options are valid");
        configure_allocator(directory.manifest().precision, Device::Cpu, batching.passes);
        let model = Model::load(directory, Device::Cpu).expect("the model loads");
        Self { model, batching }
    }

    /// Runs full batches of the sentences over and over.
    pub(crate) fn rate(&self, texts: &Texts, duration: Duration) -> Rate {
        let batches = self.batches(texts);
        let one = |number: usize| {
            self.take_cores();
            // Each shape once: kernels are made for it.
            batches.iter().for_each(|full| self.run(&full.batch));
            let (started, mut sentences, mut tokens) = (Instant::now(), 0, 0);
            for full in batches.iter().cycle().skip(number * batches.len() / self.batching.passes) {
                if started.elapsed() >= duration {
                    break;
                }
                self.run(&full.batch);
                sentences += full.sentences;
                tokens += full.tokens;
            }
            let seconds = started.elapsed().as_secs_f64();
            Rate {
                sentences: sentences as f64 / seconds,
                flops: sentence_encoder::flops(tokens, sentences) / seconds,
            }
        };
        thread::scope(|scope| {
            let passes: Vec<_> =
                (0..self.batching.passes).map(|number| scope.spawn(move || one(number))).collect();
            let rates = passes.into_iter().map(|pass| pass.join().expect("the forward pass runs"));
            rates.fold(Rate { sentences: 0.0, flops: 0.0 }, |all, rate| Rate {
                sentences: all.sentences + rate.sentences,
                flops: all.flops + rate.flops,
            })
        })
    }

    /// How long the pass over one sentence takes, each of several times.
    pub(crate) fn alone(&self, ids: &[i64], times: usize) -> Vec<Duration> {
        let mut batch = Batch { ids: ids.to_vec(), lengths: vec![ids.len() as i64] };
        self.model.round_up_shape(&mut batch);
        let once = || {
            let started = Instant::now();
            self.run(&batch);
            started.elapsed()
        };
        let all = || {
            self.take_cores();
            once();
            (0..times).map(|_| once()).collect()
        };
        thread::scope(|scope| scope.spawn(all).join().expect("the forward pass runs"))
    }

    /// Gives this thread its share of the cores.
    fn take_cores(&self) {
        let cores = (self.batching.threads / self.batching.passes).max(1);
        tch::set_num_threads(i32::try_from(cores).expect("as many cores as that there are not"));
    }

    fn run(&self, batch: &Batch) {
        self.model.embed_packed(&batch.ids, &batch.lengths).expect("the forward pass runs");
    }

    fn batches(&self, texts: &Texts) -> Vec<Full> {
        let mut batches: Vec<Batch> = Vec::new();
        for ids in &texts.ids {
            let room = |batch: &&mut Batch| batch.ids.len() + ids.len() <= self.batching.batch_tokens;
            if batches.last_mut().filter(room).is_none() {
                batches.push(Batch::default());
            }
            let batch = batches.last_mut().expect("there is one");
            batch.ids.extend(ids);
            batch.lengths.push(ids.len() as i64);
        }
        let full = |mut batch: Batch| {
            let (sentences, tokens) = (batch.lengths.len(), batch.ids.len());
            self.model.round_up_shape(&mut batch);
            Full { batch, sentences, tokens }
        };
        batches.into_iter().map(full).collect()
    }
}

/// The directory and its tokenizer.
pub(crate) fn open(directory: &Path) -> (ModelDir, Tokenizer) {
    let directory = ModelDir::open(directory).expect("a model converted by `muse-models convert`");
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes()).expect("its tokenizer");
    (directory, tokenizer)
}
