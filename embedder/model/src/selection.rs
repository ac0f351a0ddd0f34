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
/// The number of timed passes of a candidate, of which the fastest counts.
const PASSES: usize = 3;
/// No further pass begins after this time: without instructions for bf16, a pass takes long.
const TIME_LIMIT: Duration = Duration::from_millis(50);

/// A loaded model, and why it has its precision.
#[derive(Debug)]
pub struct Selection {
    /// The model.
    pub model: Model,
    /// The measurement of `auto`, or that the precision is configured.
    pub reason: String,
}

/// The time of a pass in a precision.
#[derive(Debug, Clone, Copy)]
struct Measurement {
    precision: Precision,
    pass: Duration,
}

impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} takes {:.1} ms", self.precision, self.pass.as_secs_f64() * 1e3)
    }
}

/// Loads the model in the precision of an option. For `auto` it loads the model in each candidate,
/// measures passes of `tokens` tokens on this thread, and returns the fastest.
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
    let first = match option {
        PrecisionOption::Fixed(precision) => {
            let model = Model::load(dir, device, precision)?;
            return Ok(Selection { model, reason: "it is configured".to_owned() });
        }
        PrecisionOption::Auto => Model::load(dir, device, Precision::F32)?,
    };
    let mut measurements = vec![measure(&first, tokens)?];
    let mut best = (first, measurements[0]);
    for precision in less_exact(dir, device) {
        let Ok(model) = Model::load(dir, device, precision) else { continue };
        let Ok(measurement) = measure(&model, tokens) else { continue };
        measurements.push(measurement);
        if is_preferred(measurement, best.1) {
            best = (model, measurement);
        }
    }
    let figures: Vec<String> = measurements.iter().map(Measurement::to_string).collect();
    let reason = format!("a pass of {tokens} tokens in {}", figures.join(", in "));
    Ok(Selection { model: best.0, reason })
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

/// Whether a less exact precision is worth its loss.
fn is_preferred(less_exact: Measurement, best: Measurement) -> bool {
    less_exact.pass.as_secs_f64() * MINIMUM_SPEEDUP < best.pass.as_secs_f64()
}

/// Measures a pass, after one that allocates memory and creates kernels.
fn measure(model: &Model, tokens: usize) -> Result<Measurement, ModelError> {
    let batch = Batch::dummy(tokens);
    let pass = || {
        let started = Instant::now();
        model.embed_packed(&batch.ids, &batch.lengths)?;
        Ok::<_, ModelError>(started.elapsed())
    };
    pass()?;
    let started = Instant::now();
    let mut fastest = pass()?;
    for _ in 1..PASSES {
        if started.elapsed() > TIME_LIMIT {
            break;
        }
        fastest = fastest.min(pass()?);
    }
    Ok(Measurement { precision: model.precision(), pass: fastest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_exact_precision_must_be_faster_by_a_tenth() {
        let of = |precision, millis| Measurement { precision, pass: Duration::from_millis(millis) };
        let best = of(Precision::F32, 100);
        assert!(is_preferred(of(Precision::Int8, 90), best));
        assert!(!is_preferred(of(Precision::Int8, 95), best));
        assert!(!is_preferred(of(Precision::Bf16, 300), best));
        assert_eq!(of(Precision::Bf16, 3).to_string(), "bf16 takes 3.0 ms");
    }
}
