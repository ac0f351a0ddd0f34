//! The golden sentences: how close their vectors are, and whether they are the same in any company.

use std::time::{Duration, Instant};

use muse_model::{
    inference::{DIMENSION, Model},
    model_dir::Precision,
};
use muse_models::{
    golden::{self, Sentence},
    verify::{VerifyError, batches, cosine, embed, least_cosine},
};
use muse_tests::largest_difference;
use tch::Device;

use crate::table::Table;

/// What the golden sentences showed.
pub(crate) struct Exactness {
    tried: usize,
    sentences: usize,
    worst: f64,
    mean: f64,
    /// The largest difference of a component of the same sentence alone and in a batch.
    company: f32,
}

impl Exactness {
    /// Runs the golden sentences in batches, as many as time allows, and every `alone`th of them alone.
    pub(crate) fn measure(model: &Model, alone: usize, time: Duration) -> Result<Self, VerifyError> {
        let golden = golden::sentences()?;
        // By turns from all over the file, so that all kinds are tried should the time not suffice for all of them.
        let stride = 16;
        let mixed: Vec<Sentence> =
            (0..stride).flat_map(|start| golden.iter().skip(start).step_by(stride)).cloned().collect();
        let (began, mut cosines, mut company) = (Instant::now(), Vec::new(), 0.0_f32);
        for batch in batches(&mixed).take_while(|_| began.elapsed() < time) {
            let ids: Vec<&[u32]> = batch.iter().map(|sentence| sentence.ids.as_slice()).collect();
            let vectors = embed(model, &ids)?;
            for (sentence, vector) in batch.iter().zip(vectors.chunks_exact(DIMENSION)) {
                if cosines.len() % alone == 0 {
                    let difference = largest_difference(&embed(model, &[&sentence.ids])?, vector);
                    company = if difference.is_nan() { f32::INFINITY } else { company.max(difference) };
                }
                let agreement = cosine(&sentence.vector, vector);
                // A NaN is the worst there is.
                cosines.push(if agreement.is_nan() { f64::NEG_INFINITY } else { agreement });
            }
        }
        Ok(Self {
            tried: cosines.len(),
            sentences: golden.len(),
            worst: cosines.iter().copied().fold(f64::INFINITY, f64::min),
            mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
            company,
        })
    }
}

/// Whether the vectors are those of the model. float32 has to run everywhere, and all precisions on a card; that libtorch lacks
/// one on a CPU is no mistake in the vectors.
pub(crate) fn passes(device: Device, precision: Precision, found: Result<&Exactness, &String>) -> bool {
    let may_lack = !device.is_cuda() && precision != Precision::F32;
    found.map_or(may_lack, |found| {
        found.tried > 0
            && found.worst >= least_cosine(precision)
            && found.company <= most_for_company(precision)
    })
}

/// Kernels for other sizes add in another order.
fn most_for_company(precision: Precision) -> f32 {
    if precision == Precision::F32 { 1e-5 } else { 1e-2 }
}

/// All precisions.
pub(crate) fn table(device: Device, found: &[(Precision, Result<Exactness, String>)]) -> Table {
    let mut table = Table::new(&[
        "precision",
        "tried",
        "worst cosine",
        "mean cosine",
        "at least",
        "alone or not",
        "at most",
        "",
    ]);
    for (precision, found) in found {
        let verdict = if passes(device, *precision, found.as_ref()) { "passed" } else { "FAILED" };
        match found {
            Ok(Exactness { tried, sentences, worst, mean, company }) => table.row(&[
                precision.to_string(),
                format!("{tried} of {sentences}"),
                format!("{worst:.8}"),
                format!("{mean:.8}"),
                least_cosine(*precision).to_string(),
                format!("{company:.1e}"),
                format!("{:.0e}", most_for_company(*precision)),
                verdict.to_owned(),
            ]),
            Err(failure) => table.row(&[precision.to_string(), format!("does not run: {failure}")]),
        }
    }
    table
}
