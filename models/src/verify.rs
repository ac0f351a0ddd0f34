//! Verifies a model directory against the golden data and the original.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use muse_model::{
    inference::{DIMENSION, Model, ModelError},
    model_dir::{Manifest, ModelDir, ModelDirError, SourcePrecision},
    precision::Precision,
    tokenizer::{Tokenizer, TokenizerError},
};
use tch::Device;

use crate::{
    golden::{self, GoldenError, Sentence},
    original::OriginalComparison,
};

/// `source.weights_sha256` of the weights from which the golden vectors were computed: those of the
/// int8 export that `fetch.py` downloads.
const GOLDEN_WEIGHTS_SHA256: &str = "4796297e3eacc5e7806a501f20ab5f473f5e074f809f79be66488b85590d1633";

const BATCH_TOKENS: usize = 1024;
/// The least cosine of a source with other weights: float32 weights are this close to the int8
/// ones, and those of an unrelated model are not.
const LOOSE_COSINE: f64 = 0.97;

/// Why a directory cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory is incomplete or damaged.
    #[error(transparent)]
    ModelDir(#[from] ModelDirError),
    /// Its tokenizer cannot be used.
    #[error("the tokenizer of the model directory {}: {error}", .path.display())]
    Tokenizer {
        /// The directory.
        path: PathBuf,
        /// The problem.
        error: TokenizerError,
    },
    /// Its model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The golden data of this program is not consistent.
    #[error(transparent)]
    Golden(#[from] GoldenError),
}

/// The result of a verification.
#[derive(Debug)]
pub struct VerificationReport {
    /// The manifest of the directory.
    pub manifest: Manifest,
    /// The precision of the forward pass.
    pub precision: Precision,
    /// What computed the encoder: the name of a kernel, or `libtorch`.
    pub kernel: &'static str,
    /// The number of sentences.
    pub sentences: usize,
    /// Sentences whose ids differ from the golden ones.
    pub token_mismatches: usize,
    /// Lowest cosine to a golden vector.
    pub worst_cosine: f64,
    /// The sentence that has it.
    pub worst_sentence: String,
    /// Mean cosine to the golden vectors.
    pub mean_cosine: f64,
    /// The comparison with the published numbers of the original.
    pub original: OriginalComparison,
}

/// Opens the directory, which verifies its files, and runs the golden sentences through its
/// tokenizer and model in a precision, on the CPU.
pub fn verify(path: &Path, precision: Precision) -> Result<VerificationReport, VerifyError> {
    let dir = ModelDir::open(path)?;
    let tokenizer = Tokenizer::from_bytes(dir.tokenizer_bytes())
        .map_err(|error| VerifyError::Tokenizer { path: path.to_owned(), error })?;
    let model = Model::load(&dir, Device::Cpu, precision)?;
    let sentences = golden::sentences()?;
    let token_mismatches =
        sentences.iter().filter(|sentence| tokenizer.encode(&sentence.text) != sentence.ids).count();

    let mut cosines = Vec::with_capacity(sentences.len());
    for batch in batches(&sentences) {
        let ids: Vec<&[u32]> = batch.iter().map(|sentence| sentence.ids.as_slice()).collect();
        let vectors = embed(&model, &ids)?;
        let pairs = batch.iter().zip(vectors.chunks_exact(DIMENSION));
        cosines.extend(pairs.map(|(sentence, vector)| cosine(&sentence.vector, vector)));
    }
    // A NaN is worse than any number.
    let rank = |cosine: f64| if cosine.is_nan() { f64::NEG_INFINITY } else { cosine };
    let worst = (0..cosines.len()).min_by(|a, b| rank(cosines[*a]).total_cmp(&rank(cosines[*b])));

    Ok(VerificationReport {
        manifest: dir.manifest().clone(),
        precision,
        kernel: model.kernel().unwrap_or("libtorch"),
        sentences: sentences.len(),
        token_mismatches,
        worst_cosine: worst.map_or(f64::NAN, |index| cosines[index]),
        worst_sentence: worst.map(|index| sentences[index].text.clone()).unwrap_or_default(),
        mean_cosine: cosines.iter().sum::<f64>() / cosines.len() as f64,
        original: OriginalComparison::of(&model, &tokenizer)?,
    })
}

impl VerificationReport {
    /// The failures; empty if the directory passes.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let source = &self.manifest.source;
        if self.token_mismatches > 0 {
            failures
                .push(format!("{} of {} sentences have other tokens", self.token_mismatches, self.sentences));
        }
        let least = self.least_cosine();
        if self.worst_cosine.is_nan() || self.worst_cosine < least {
            failures.push(format!("the worst cosine {:.8} is below {least}", self.worst_cosine));
        }
        if source.precision == SourcePrecision::Float32 {
            let most = self.largest_difference();
            let OriginalComparison { components, similarities, .. } = &self.original;
            for (distances, numbers) in [(components, "components"), (similarities, "similarities")] {
                if distances.exceed(most) {
                    failures.push(format!(
                        "differs from the {} published {numbers} of the original by up to {:.1e}, a float32 source \
                         may by {most:.0e}: its weights are not the original's float32 ones",
                        distances.count, distances.largest
                    ));
                }
            }
        }
        failures
    }

    fn is_of_golden_weights(&self) -> bool {
        self.manifest.source.weights_sha256 == GOLDEN_WEIGHTS_SHA256
    }

    fn least_cosine(&self) -> f64 {
        if self.is_of_golden_weights() { least_cosine(self.precision) } else { LOOSE_COSINE }
    }

    /// The largest difference from a published number with which a float32 source passes.
    fn largest_difference(&self) -> f64 {
        if self.precision == Precision::F32 { 1e-5 } else { 1e-2 }
    }
}

impl fmt::Display for VerificationReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { name, version, source, .. } = &self.manifest;
        writeln!(formatter, "model: {name} {version}, from {} ({})", source.file, source.precision)?;
        writeln!(formatter, "precision: {}, computed by {}", self.precision, self.kernel)?;
        writeln!(formatter, "files: size and sha256 as in the manifest")?;
        let VerificationReport { sentences, token_mismatches, worst_cosine, mean_cosine, .. } = self;
        writeln!(formatter, "tokens: {token_mismatches} of {sentences} sentences differ")?;
        writeln!(
            formatter,
            "vectors: cosine to the golden ones {worst_cosine:.8} at worst, {mean_cosine:.8} on average"
        )?;
        writeln!(formatter, "  worst: {:?}", self.worst_sentence.chars().take(60).collect::<String>())?;
        if !self.is_of_golden_weights() {
            writeln!(
                formatter,
                "  judged loosely: the golden vectors are of the default model's weights, these are others"
            )?;
        }
        write!(formatter, "{}", self.original)?;
        if source.precision == SourcePrecision::Int8 {
            write!(formatter, "\n  not judged: the original has float32 weights, these are int8")?;
        }
        Ok(())
    }
}

/// The lowest cosine to a golden vector with which a model of the golden weights passes.
#[must_use]
pub fn least_cosine(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.999_999,
        Precision::Int8 => 0.9996,
        Precision::Bf16 | Precision::F16 => 0.999,
    }
}

/// Embeds sentences in one batch.
///
/// # Errors
///
/// If the forward pass fails.
pub fn embed(model: &Model, sentences: &[&[u32]]) -> Result<Vec<f32>, ModelError> {
    let ids: Vec<i64> = sentences.iter().copied().flatten().map(|id| i64::from(*id)).collect();
    let lengths: Vec<i64> = sentences.iter().map(|ids| ids.len() as i64).collect();
    model.embed(&ids, &lengths)
}

/// Splits sentences into batches of up to 1,024 tokens. A longer sentence is a batch of its own.
pub fn batches(sentences: &[Sentence]) -> impl Iterator<Item = &[Sentence]> {
    let mut rest = sentences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sentence| {
            tokens += sentence.ids.len();
            tokens <= BATCH_TOKENS
        });
        let count = fitting.count().max(1).min(rest.len());
        let (batch, others) = rest.split_at(count);
        rest = others;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The cosine of two vectors, in f64.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muse_model::model_dir::{Source, Versions};

    use super::*;
    use crate::original::Distances;

    /// The report of a model with these differences from the published numbers.
    fn report(precision: Precision, source: SourcePrecision, differences: [f64; 2]) -> VerificationReport {
        let [components, similarities] =
            differences.map(|largest| Distances { count: 20, largest, rms: 0.0, correlation: 1.0 });
        let manifest = Manifest {
            format: 0,
            name: "m".to_owned(),
            version: "3".to_owned(),
            dimension: 512,
            vocabulary: 10,
            languages: Vec::new(),
            source: Source {
                file: "m.tar.gz".to_owned(),
                sha256: "00".to_owned(),
                precision: source,
                weights_sha256: "11".to_owned(),
            },
            versions: Versions { muse: "0".to_owned(), libtorch: "2".to_owned() },
            license: "Apache-2.0".to_owned(),
            attribution: "somebody".to_owned(),
            files: BTreeMap::new(),
            checksum: String::new(),
        };
        VerificationReport {
            manifest,
            precision,
            kernel: "AVX2",
            sentences: 10,
            token_mismatches: 0,
            worst_cosine: 0.98,
            worst_sentence: "a sentence".to_owned(),
            mean_cosine: 0.99,
            original: OriginalComparison {
                components,
                cosine: 1.0,
                similarities,
                texts: 2,
                same_nearest: 2,
                pairs: Vec::new(),
            },
        }
    }

    #[test]
    fn float32_source_must_meet_all_published_numbers() {
        use SourcePrecision::{Float32, Int8};
        let failures =
            |precision, source, differences| report(precision, source, differences).failures().len();
        assert_eq!(failures(Precision::F32, Float32, [9e-6, 9e-6]), 0);
        assert_eq!(failures(Precision::F32, Float32, [2e-5, 9e-6]), 1);
        assert_eq!(failures(Precision::F32, Float32, [9e-6, 2e-5]), 1);
        assert_eq!(failures(Precision::F32, Float32, [2e-5, f64::NAN]), 2);
        assert_eq!(failures(Precision::F16, Float32, [2e-5, 2e-5]), 0);
        assert_eq!(failures(Precision::F16, Float32, [2e-2, 2e-2]), 2);
        // The weights are not those of the original.
        assert_eq!(failures(Precision::F32, Int8, [1e-2, 1e-2]), 0);
        assert!(report(Precision::F32, Int8, [1e-2, 1e-2]).to_string().contains("not judged"));
    }

    #[test]
    fn golden_vectors_judge_only_their_weights_strictly() {
        let mut report = report(Precision::F32, SourcePrecision::Float32, [0.0, 0.0]);
        assert!(report.failures().is_empty() && report.to_string().contains("judged loosely"));
        report.worst_cosine = 0.96;
        assert_eq!(report.failures().len(), 1);
        report.worst_cosine = 0.98;
        GOLDEN_WEIGHTS_SHA256.clone_into(&mut report.manifest.source.weights_sha256);
        assert_eq!(report.failures().len(), 1);
        assert!(!report.to_string().contains("judged loosely"));
        report.worst_cosine = f64::NAN;
        assert_eq!(report.failures().len(), 1);
    }
}
