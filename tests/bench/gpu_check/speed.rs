//! Throughput of the forward pass by batch size.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use muse_model::{
    device,
    inference::{Model, ModelError},
    precision::Precision,
};
use muse_models::sentence_encoder;
use muse_tests::golden_sentences;
use tch::Device;

use crate::products::{Product, tera};

/// Throughput at one batch size.
pub(crate) struct Line {
    sentences: usize,
    tokens: usize,
    /// Passes per second, or the error.
    passes: Result<f64, String>,
}

impl Line {
    pub(crate) fn cells(&self, precision: Precision, products: [&Product; 2]) -> Vec<String> {
        let Self { sentences, tokens, passes } = self;
        let mut cells = vec![precision.to_string(), sentences.to_string(), tokens.to_string()];
        match passes {
            Ok(passes) => {
                let flops = sentence_encoder::flops(*tokens, *sentences) * passes;
                cells.extend([sentences, tokens].map(|count| format!("{:.0}", *count as f64 * passes)));
                cells.push(tera(flops));
                cells.extend(products.map(|product| product.share(flops)));
            }
            Err(reason) => cells.push(reason.clone()),
        }
        cells
    }
}

/// Measures batches with these numbers of sentences in ascending order. If a pass takes more than
/// twice `time`, larger batches are skipped.
pub(crate) fn measure(model: &Model, device: Device, sizes: &[usize], time: Duration) -> Vec<Line> {
    // Only natural sentences: the hard ones test exactness.
    let golden: Vec<Vec<i64>> = golden_sentences()
        .into_iter()
        .filter(|sentence| !sentence.kind.starts_with("hard:"))
        .map(|sentence| sentence.ids.into_iter().map(i64::from).collect())
        .collect();
    // Adjacent sentences in the file have the same language, and lengths differ by language.
    let mixed = (0..golden.len()).map(|index| &golden[index * 41 % golden.len()]);
    let (mut lines, mut slow) = (Vec::new(), None);
    for sentences in sizes.iter().copied() {
        let batch: Vec<&Vec<i64>> = mixed.clone().cycle().take(sentences).collect();
        let lengths: Vec<i64> = batch.iter().map(|ids| ids.len() as i64).collect();
        let ids: Vec<i64> = batch.into_iter().flatten().copied().collect();
        let passes = match slow {
            Some(took) => Err(format!("skipped: the previous pass took {took:.1?}")),
            None => passes(model, device, &ids, &lengths, time)
                .inspect(|(_, took)| slow = (*took > 2 * time).then_some(*took))
                .map(|(passes, _)| passes)
                .map_err(|failure| failure.to_string()),
        };
        lines.push(Line { sentences, tokens: ids.len(), passes });
    }
    lines
}

/// Number of concurrent passes, as in the embedder.
pub(crate) fn passes_in_flight(device: Device) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    device::passes_in_flight(device, cores)
}

/// Returns passes per second of all threads together, and the mean duration of a pass on the
/// slowest thread.
fn passes(
    model: &Model,
    device: Device,
    ids: &[i64],
    lengths: &[i64],
    time: Duration,
) -> Result<(f64, Duration), ModelError> {
    let threads = passes_in_flight(device);
    let barrier = Barrier::new(threads);
    let one = || {
        // One core per pass; the setting is per thread.
        tch::set_num_threads(1);
        // Initializes the kernels for this shape. After an error, too, the thread must reach the
        // barrier.
        let warm = model.embed(ids, lengths);
        barrier.wait();
        warm?;
        let (began, mut passes) = (Instant::now(), 0_u32);
        while passes == 0 || began.elapsed() < time {
            model.embed(ids, lengths)?;
            passes += 1;
        }
        let took = began.elapsed() / passes;
        Ok((took.as_secs_f64().recip(), took))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().try_fold((0.0, Duration::ZERO), |(sum, slowest), thread| {
            let (rate, took) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((sum + rate, slowest.max(took)))
        })
    })
}
