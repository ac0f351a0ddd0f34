//! The bare forward pass in this process, the reference of the comparison.

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
use muse_model::{
    batch::Batch,
    inference::{DIMENSION, Model},
    model_dir::ModelDir,
    precision::Precision,
    tokenizer::Tokenizer,
};
use muse_models::sentence_encoder;
use tch::{Device, Tensor};

use crate::workload::Texts;

/// The throughput of the forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Sentences per second.
    pub(crate) sentences: f64,
    /// Floating-point operations per second, without those for dummy tokens.
    pub(crate) flops: f64,
}

/// The model, run like in the service: the same number of concurrent passes and the same batch
/// shapes.
pub(crate) struct Forward {
    model: Model,
    batching: Batching,
}

/// A full batch, with the number of sentences and tokens without dummies.
struct Full {
    batch: Batch,
    sentences: usize,
    tokens: usize,
}

impl Forward {
    /// Loads the model with the settings of the environment.
    pub(crate) fn load(directory: &ModelDir, precision: Precision) -> Self {
        let args = Args::parse_from(["muse-embedder", "--model-dir", ".", "--device", "cpu"]);
        let Config { batching, .. } = args.try_into().expect("the options are valid");
        let model = Model::load(directory, Device::Cpu, precision).expect("the model loads");
        configure_allocator(&model, batching.passes);
        Self { model, batching }
    }

    /// The precision.
    pub(crate) fn precision(&self) -> Precision {
        self.model.precision()
    }

    /// The name of the kernel that computes the encoder, or `libtorch`.
    pub(crate) fn kernel(&self) -> &'static str {
        self.model.kernel().unwrap_or("libtorch")
    }

    /// The vectors of the sentences, (N, 512).
    pub(crate) fn embed(&self, texts: &Texts) -> Tensor {
        self.set_threads();
        let vectors: Vec<f32> = self
            .batches(texts)
            .iter()
            .flat_map(|Full { batch, sentences, .. }| {
                let mut vectors =
                    self.model.embed(&batch.ids, &batch.lengths).expect("the forward pass runs");
                vectors.truncate(sentences * DIMENSION);
                vectors
            })
            .collect();
        Tensor::from_slice(&vectors).view([-1, DIMENSION as i64])
    }

    /// Runs full batches of the sentences repeatedly.
    pub(crate) fn rate(&self, texts: &Texts, duration: Duration) -> Rate {
        let batches = self.batches(texts);
        let one = |number: usize| {
            self.set_threads();
            // Warm-up: kernels are generated for each shape.
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

    /// The durations of passes over one sentence.
    pub(crate) fn single_sentence(&self, ids: &[i64], times: usize) -> Vec<Duration> {
        let mut batch = Batch { ids: ids.to_vec(), lengths: vec![ids.len() as i64] };
        self.model.round_up_shape(&mut batch);
        let once = || {
            let started = Instant::now();
            self.run(&batch);
            started.elapsed()
        };
        let all = || {
            self.set_threads();
            once();
            (0..times).map(|_| once()).collect()
        };
        thread::scope(|scope| scope.spawn(all).join().expect("the forward pass runs"))
    }

    /// Sets the number of threads of a pass.
    fn set_threads(&self) {
        let cores = (self.batching.threads / self.batching.passes).max(1);
        tch::set_num_threads(i32::try_from(cores).expect("the number of cores fits"));
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

/// Opens a model directory and its tokenizer.
pub(crate) fn open(directory: &Path) -> (ModelDir, Tokenizer) {
    let directory = ModelDir::open(directory).expect("a model converted by `muse-models convert`");
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes()).expect("its tokenizer");
    (directory, tokenizer)
}
