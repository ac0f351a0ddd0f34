//! Converts the model into a model directory.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use muse_model::{
    inference::DIMENSION,
    model_dir::{
        FORMAT, FileEntry, LICENSE_FILE, LISTED_FILES, MANIFEST_FILE, MODEL_FILE, Manifest, ModelDir,
        ModelDirError, ModelDirProblem, Source, TOKENIZER_FILE, Versions,
    },
    tokenizer::{Tokenizer, TokenizerError},
};
use muse_torchscript::SaveError;
use tch::TchError;

use crate::{
    sentence_encoder::{EncoderError, SentenceEncoder},
    source::{ModelSource, OpenSource, SourceError},
    staging::StagingDir,
    weights::{TABLE_ROWS, WeightError},
};

const LICENSE_TEXT: &str = include_str!("../LICENSE-WEIGHTS");
const ATTRIBUTION: &str = "universal-sentence-encoder-multilingual, version 3, by Google (arXiv 1907.04307)";
const LIBTORCH_VERSION: &str = "2.11.0";
const LANGUAGES: [&str; 16] = [
    "ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh-Hans", "zh-Hant",
];

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source is another model, damaged, or cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A weight of the source cannot be used.
    #[error("{}: {error}", .path.display())]
    Weights {
        /// The source.
        path: PathBuf,
        /// The problem.
        error: WeightError,
    },
    /// The SentencePiece model of the source cannot be used.
    #[error("{}: its tokenizer: {error}", .path.display())]
    Tokenizer {
        /// The source.
        path: PathBuf,
        /// The problem.
        error: TokenizerError,
    },
    /// The tokenizer has ids that the embedding table lacks.
    #[error("{}: its tokenizer has {pieces} pieces, but its table {TABLE_ROWS} rows", .path.display())]
    Vocabulary {
        /// The source.
        path: PathBuf,
        /// The pieces of the tokenizer.
        pieces: usize,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The output exists and is not a model directory; it is not changed.
    #[error("{} exists and is not a model directory: choose another path", .0.display())]
    OutputExists(PathBuf),
    /// The output cannot be renamed.
    #[error("{} is a mount point: choose a folder inside it", .0.display())]
    MountPoint(PathBuf),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// The outcome of [`convert`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConversionOutcome {
    /// The directory was written.
    Converted,
    /// The directory was replaced, for this reason.
    ConvertedAgain(String),
    /// The directory already is a conversion of the same source by the same version.
    UpToDate,
}

/// Detects the source at `path`, and [converts](convert_source) it.
pub fn convert(path: &Path, out: &Path) -> Result<ConversionOutcome, ConvertError> {
    convert_source(&ModelSource::detect(path)?, out)
}

/// Converts a source into a model directory at `out`.
///
/// It writes a directory with another name beside `out`, and renames it, so that `out` is never
/// incomplete.
pub fn convert_source(source: &ModelSource, out: &Path) -> Result<ConversionOutcome, ConvertError> {
    let path = source.path();
    let out = &resolved_output(out)?;
    let sha256 = source.sha256()?;
    let opened = ModelDir::open(out);
    let difference = match &opened {
        Ok(dir) => match difference(dir.manifest(), &sha256) {
            Some(difference) => Some(difference),
            None => return Ok(ConversionOutcome::UpToDate),
        },
        Err(ModelDirError { problem: ModelDirProblem::Format { found }, .. }) => {
            Some(format!("it had the format {found}, not {FORMAT}"))
        }
        Err(error) => out.join(MANIFEST_FILE).is_file().then(|| format!("it {}", error.problem)),
    };
    check_output(out, opened.is_ok())?;

    let staging = StagingDir::beside(out)?;
    let OpenSource { weights, tokenizer, precision } = source.open(staging.path())?;
    // Rejects one that the embedder cannot use.
    let vocabulary = Tokenizer::from_bytes(&tokenizer)
        .map_err(|error| ConvertError::Tokenizer { path: path.to_owned(), error })?
        .vocabulary_size();
    if vocabulary > TABLE_ROWS {
        return Err(ConvertError::Vocabulary { path: path.to_owned(), pieces: vocabulary });
    }
    let encoder = SentenceEncoder::new(weights.as_ref()).map_err(|error| match error {
        EncoderError::Weights(error) => ConvertError::Weights { path: path.to_owned(), error },
        EncoderError::Torch(error) => ConvertError::Torch(error),
    })?;
    drop(weights);

    let cannot_write = |error| ConvertError::Write { path: staging.path().to_owned(), error };
    encoder.save(&staging.path().join(MODEL_FILE)).map_err(|error| match error {
        SaveError::Write(error) => cannot_write(error),
        SaveError::Torch(error) => ConvertError::Torch(error),
    })?;
    fs::write(staging.path().join(TOKENIZER_FILE), tokenizer).map_err(cannot_write)?;
    fs::write(staging.path().join(LICENSE_FILE), format!("{ATTRIBUTION}\n\n{LICENSE_TEXT}"))
        .map_err(cannot_write)?;
    let mut files = BTreeMap::new();
    for name in LISTED_FILES {
        files.insert(name.to_owned(), FileEntry::of(&staging.path().join(name)).map_err(cannot_write)?);
    }
    let manifest = Manifest {
        format: FORMAT,
        name: "universal-sentence-encoder-multilingual".to_owned(),
        version: "3".to_owned(),
        dimension: DIMENSION as u32,
        vocabulary: u32::try_from(vocabulary).unwrap_or(u32::MAX),
        languages: LANGUAGES.map(str::to_owned).to_vec(),
        source: Source {
            file: source.name(),
            sha256,
            precision,
            weights_sha256: encoder.weights_sha256().to_owned(),
        },
        versions: versions(),
        license: "Apache-2.0".to_owned(),
        attribution: ATTRIBUTION.to_owned(),
        files,
        checksum: String::new(),
    };
    let manifest = manifest.to_bytes().map_err(|error| cannot_write(error.into()))?;
    fs::write(staging.path().join(MANIFEST_FILE), manifest).map_err(cannot_write)?;
    staging.move_to(out)?;
    Ok(difference.map_or(ConversionOutcome::Converted, ConversionOutcome::ConvertedAgain))
}

/// The first difference between a model directory and a conversion of this source by this version.
fn difference(manifest: &Manifest, sha256: &str) -> Option<String> {
    let Manifest { source, versions: by, .. } = manifest;
    if source.sha256 != sha256 {
        return Some(format!("it was a conversion of another file, {}", source.file));
    }
    let Versions { muse, libtorch } = versions();
    (*by != Versions { muse: muse.clone(), libtorch: libtorch.clone() }).then(|| {
        format!("version {} with libtorch {} wrote it, not {muse} with {libtorch}", by.muse, by.libtorch)
    })
}

fn versions() -> Versions {
    Versions { muse: env!("CARGO_PKG_VERSION").to_owned(), libtorch: LIBTORCH_VERSION.to_owned() }
}

/// The output, if it can be replaced by a rename: what a symbolic link refers to, and no mount point.
fn resolved_output(out: &Path) -> Result<PathBuf, ConvertError> {
    let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
    if !out.is_symlink() && !out.exists() {
        return Ok(out.to_owned());
    }
    let resolved = fs::canonicalize(out).map_err(cannot_write)?;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).map_err(cannot_write);
    match resolved.parent() {
        Some(parent) if device(parent)? == device(&resolved)? => Ok(resolved),
        _ => Err(ConvertError::MountPoint(out.to_owned())),
    }
}

// A directory with a manifest is another or a damaged conversion and may be replaced; so may an
// empty directory.
fn check_output(out: &Path, is_model_dir: bool) -> Result<(), ConvertError> {
    let replaceable = is_model_dir || !out.exists() || out.join(MANIFEST_FILE).is_file() || is_empty(out);
    if replaceable { Ok(()) } else { Err(ConvertError::OutputExists(out.to_owned())) }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}
