//! The precision that `auto` selects: the fastest one of a documented quality, by a measurement.
//!
//! The candidates have a cosine of at least 0.9996 to the float64 reference on each golden sentence
//! (docs/model/precision.md): f32, bf16 and, on CPUs, int8. float16 is no candidate, since bf16 is
//! as fast on each device that supports both, and has the range of float32.

use std::{
    fmt,
    time::{Duration, Instant},
};

use tch::Device;

use crate::{
    batch::Batch,
    inference::{Model, ModelError, kernel},
    model_dir::{ModelDir, SourcePrecision},
    precision::{Precision, PrecisionOption},
};

/// A less exact precision is selected if it is faster by this factor.
const MINIMUM_SPEEDUP: f64 = 1.1;
/// The number of timed passes of each candidate. The fastest counts, which other programs disturbed
/// least.
const ROUNDS: usize = 7;
/// A candidate whose first timed pass is slower than that of f32 by this factor is left out, since
/// it would delay the start: without instructions for bf16 a pass takes long.
const TOO_SLOW: u32 = 4;

/// A loaded model, and why it has its precision.
#[derive(Debug)]
pub struct Selection {
    /// The model.
    pub model: Model,
    /// The measurement of `auto`, or that the precision is configured.
    pub reason: String,
}

/// A precision, its model, and the time of its fastest pass so far.
struct Candidate {
    model: Model,
    fastest: Duration,
}

impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.fastest.as_secs_f64() * 1e3;
        write!(formatter, "{} takes {millis:.1} ms", self.model.precision())
    }
}

impl Candidate {
    /// Loads the model, and runs a pass that allocates memory and creates kernels, and one that is
    /// timed.
    fn load(dir: &ModelDir, device: Device, precision: Precision, batch: &Batch) -> Result<Self, ModelError> {
        let model = Model::load(dir, device, precision)?;
        let mut candidate = Candidate { model, fastest: Duration::MAX };
        candidate.run(batch)?;
        candidate.fastest = Duration::MAX;
        candidate.run(batch)?;
        Ok(candidate)
    }

    /// Runs a pass.
    fn run(&mut self, batch: &Batch) -> Result<(), ModelError> {
        let started = Instant::now();
        self.model.embed_packed(&batch.ids, &batch.lengths)?;
        self.fastest = self.fastest.min(started.elapsed());
        Ok(())
    }
}

/// Loads the model in the precision of an option. For `auto` it loads the model in each candidate,
/// measures passes of `tokens` tokens on this thread, in turns, and returns the fastest.
///
/// # Errors
///
/// If the model cannot be loaded. A candidate that does not run on the device is left out.
pub fn load(
    dir: &ModelDir,
    device: Device,
    option: PrecisionOption,
    tokens: usize,
) -> Result<Selection, ModelError> {
    if let PrecisionOption::Fixed(precision) = option {
        let model = Model::load(dir, device, precision)?;
        return Ok(Selection { model, reason: "it is configured".to_owned() });
    }
    let batch = Batch::dummy(tokens);
    let mut best = Candidate::load(dir, device, Precision::F32, &batch)?;
    let mut others = Vec::new();
    let mut slow = Vec::new();
    for precision in less_exact(dir, device) {
        let Ok(candidate) = Candidate::load(dir, device, precision, &batch) else { continue };
        if candidate.fastest > TOO_SLOW * best.fastest {
            slow.push(candidate.to_string());
        } else {
            others.push(candidate);
        }
    }
    for _ in 1..ROUNDS {
        for candidate in std::iter::once(&mut best).chain(&mut others) {
            candidate.run(&batch)?;
        }
    }
    let measured: Vec<String> =
        std::iter::once(&best).chain(&others).map(Candidate::to_string).chain(slow).collect();
    let reason = format!("a pass of {tokens} tokens in {}", measured.join(", in "));
    for candidate in others {
        if is_preferred(candidate.fastest, best.fastest) {
            best = candidate;
        }
    }
    Ok(Selection { model: best.model, reason })
}

/// The candidates besides float32, the most exact first.
fn less_exact(dir: &ModelDir, device: Device) -> Vec<Precision> {
    let mut candidates = vec![Precision::Bf16];
    // The documented quality is that of weights that are 8-bit integers in the source.
    let has_integers = dir.manifest().source.precision == SourcePrecision::Int8;
    if has_integers && kernel(Precision::Int8, device).is_some() {
        candidates.push(Precision::Int8);
    }
    candidates
}

/// Whether a less exact precision, whose fastest pass took this long, is worth its loss.
fn is_preferred(less_exact: Duration, best: Duration) -> bool {
    less_exact.as_secs_f64() * MINIMUM_SPEEDUP < best.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_exact_precision_must_be_faster_by_a_tenth() {
        let is_preferred = |millis| is_preferred(Duration::from_millis(millis), Duration::from_millis(100));
        assert!(is_preferred(90));
        assert!(!is_preferred(95) && !is_preferred(300));
    }
}
