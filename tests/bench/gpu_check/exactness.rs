//! Exactness of the vectors of the golden sentences, and their independence of the batch.

use std::time::{Duration, Instant};

use muse_model::{
    inference::{DIMENSION, Model},
    precision::Precision,
};
use muse_models::{
    golden::{self, Sentence},
    verify::{VerifyError, batches, cosine, embed, least_cosine},
};
use muse_tests::largest_difference;
use tch::Device;

use crate::table::Table;

/// The result for the golden sentences.
pub(crate) struct Exactness {
    tested: usize,
    sentences: usize,
    worst: f64,
    mean: f64,
    /// The largest difference of a component between the same sentence alone and in a batch.
    batch_difference: f32,
}

impl Exactness {
    /// Runs the golden sentences in batches until `time` has passed, and each `single_stride`-th
    /// also alone.
    pub(crate) fn measure(model: &Model, single_stride: usize, time: Duration) -> Result<Self, VerifyError> {
        let golden = golden::sentences()?;
        // In strides over the whole file, so that all kinds are included if the time does not
        // suffice for all sentences.
        let stride = 16;
        let mixed: Vec<Sentence> =
            (0..stride).flat_map(|start| golden.iter().skip(start).step_by(stride)).cloned().collect();
        let (began, mut cosines, mut batch_difference) = (Instant::now(), Vec::new(), 0.0_f32);
        for batch in batches(&mixed).take_while(|_| began.elapsed() < time) {
            let ids: Vec<&[u32]> = batch.iter().map(|sentence| sentence.ids.as_slice()).collect();
            let vectors = embed(model, &ids)?;
            for (sentence, vector) in batch.iter().zip(vectors.chunks_exact(DIMENSION)) {
                if cosines.len() % single_stride == 0 {
                    let difference = largest_difference(&embed(model, &[&sentence.ids])?, vector);
                    batch_difference =
                        if difference.is_nan() { f32::INFINITY } else { batch_difference.max(difference) };
                }
                let agreement = cosine(&sentence.vector, vector);
                // NaN counts as the lowest value.
                cosines.push(if agreement.is_nan() { f64::NEG_INFINITY } else { agreement });
            }
        }
        Ok(Self {
            tested: cosines.len(),
            sentences: golden.len(),
            worst: cosines.iter().copied().fold(f64::INFINITY, f64::min),
            mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
            batch_difference,
        })
    }
}

/// Whether the vectors are exact enough. float32 must run on all devices, and all precisions on a
/// GPU; on a CPU, libtorch may lack a precision.
pub(crate) fn passes(device: Device, precision: Precision, found: Result<&Exactness, &String>) -> bool {
    let may_lack = !device.is_cuda() && precision != Precision::F32;
    found.map_or(may_lack, |found| {
        found.tested > 0
            && found.worst >= least_cosine(precision)
            && found.batch_difference <= max_batch_difference(precision)
    })
}

/// Kernels for different sizes sum in different orders.
fn max_batch_difference(precision: Precision) -> f32 {
    if precision == Precision::F32 { 1e-5 } else { 1e-2 }
}

/// The table of all precisions.
pub(crate) fn table(device: Device, found: &[(Precision, Result<Exactness, String>)]) -> Table {
    let mut table = Table::new(&[
        "precision",
        "tested",
        "worst cosine",
        "mean cosine",
        "at least",
        "difference in a batch",
        "at most",
        "",
    ]);
    for (precision, found) in found {
        let verdict = if passes(device, *precision, found.as_ref()) { "passed" } else { "FAILED" };
        match found {
            Ok(Exactness { tested, sentences, worst, mean, batch_difference }) => table.row(&[
                precision.to_string(),
                format!("{tested} of {sentences}"),
                format!("{worst:.8}"),
                format!("{mean:.8}"),
                least_cosine(*precision).to_string(),
                format!("{batch_difference:.1e}"),
                format!("{:.0e}", max_batch_difference(*precision)),
                verdict.to_owned(),
            ]),
            Err(failure) => table.row(&[precision.to_string(), format!("failed: {failure}")]),
        }
    }
    table
}
