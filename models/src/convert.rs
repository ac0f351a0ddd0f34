//! Converts an ONNX file into a model directory.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use muse_model::{
    inference::DIMENSION,
    model_dir::{
        FORMAT, FileEntry, LICENSE_FILE, LISTED_FILES, MANIFEST_FILE, MODEL_FILE, Manifest, ModelDir,
        Precision, Source, SourcePrecision, TOKENIZER_FILE, Versions,
    },
    tokenizer::{Tokenizer, TokenizerError},
};
use sha2::{Digest, Sha256};
use tch::TchError;

use crate::{
    onnx::{self, GraphProto, OnnxError},
    sentence_encoder::{EncoderError, SentenceEncoder},
    weights::OnnxWeights,
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
    /// The ONNX file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The ONNX file is not this model.
    #[error("{}: {error}", .path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// The problem.
        error: OnnxError,
    },
    /// The SentencePiece model in the ONNX file cannot be used.
    #[error("{}: its tokenizer: {error}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The problem.
        error: TokenizerError,
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
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// The outcome of [`convert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversionOutcome {
    /// The directory was written.
    Converted,
    /// The directory already is a conversion of the same file, in the same precision, by the same
    /// version.
    UpToDate,
}

/// Converts the ONNX file at `onnx_path` into a model directory at `out`.
///
/// It writes a directory with another name beside `out`, and renames it, so that `out` is never
/// incomplete.
pub fn convert(
    onnx_path: &Path,
    out: &Path,
    precision: Precision,
) -> Result<ConversionOutcome, ConvertError> {
    let bytes =
        fs::read(onnx_path).map_err(|error| ConvertError::Read { path: onnx_path.to_owned(), error })?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let opened = ModelDir::open(out);
    if opened.as_ref().is_ok_and(|dir| is_conversion_of(dir.manifest(), &sha256, precision)) {
        return Ok(ConversionOutcome::UpToDate);
    }
    check_output(out, opened.is_ok())?;

    let onnx_error = |error| ConvertError::Onnx { path: onnx_path.to_owned(), error };
    let graph = onnx::parse(&bytes).map_err(onnx_error)?;
    let tokenizer = onnx::tokenizer_model(&graph).map_err(onnx_error)?;
    // Rejects one that the embedder cannot use.
    let vocabulary = Tokenizer::from_bytes(tokenizer)
        .map_err(|error| ConvertError::Tokenizer { path: onnx_path.to_owned(), error })?
        .vocabulary_size();
    let encoder = SentenceEncoder::new(&OnnxWeights::of(&graph)).map_err(|error| match error {
        EncoderError::Weights(error) => onnx_error(error),
        EncoderError::Torch(error) => ConvertError::Torch(error),
    })?;

    let staging = StagingDir::beside(out)?;
    let cannot_write = |error| ConvertError::Write { path: staging.path.clone(), error };
    encoder.save(&staging.path.join(MODEL_FILE))?;
    fs::write(staging.path.join(TOKENIZER_FILE), tokenizer).map_err(cannot_write)?;
    fs::write(staging.path.join(LICENSE_FILE), format!("{ATTRIBUTION}\n\n{LICENSE_TEXT}"))
        .map_err(cannot_write)?;
    let mut files = BTreeMap::new();
    for name in LISTED_FILES {
        files.insert(name.to_owned(), FileEntry::of(&staging.path.join(name)).map_err(cannot_write)?);
    }
    let file = onnx_path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let manifest = Manifest {
        format: FORMAT,
        name: "universal-sentence-encoder-multilingual".to_owned(),
        version: "3".to_owned(),
        dimension: DIMENSION as u32,
        vocabulary: u32::try_from(vocabulary).unwrap_or(u32::MAX),
        languages: LANGUAGES.map(str::to_owned).to_vec(),
        precision,
        source: Source {
            file,
            sha256,
            precision: source_precision(&graph),
            weights_sha256: encoder.weights_sha256().to_owned(),
        },
        versions: versions(),
        license: "Apache-2.0".to_owned(),
        attribution: ATTRIBUTION.to_owned(),
        files,
        checksum: String::new(),
    };
    let manifest = manifest.to_bytes().map_err(|error| cannot_write(error.into()))?;
    fs::write(staging.path.join(MANIFEST_FILE), manifest).map_err(cannot_write)?;
    staging.move_to(out)?;
    Ok(ConversionOutcome::Converted)
}

fn is_conversion_of(manifest: &Manifest, sha256: &str, precision: Precision) -> bool {
    manifest.source.sha256 == sha256 && manifest.precision == precision && manifest.versions == versions()
}

fn versions() -> Versions {
    Versions { muse: env!("CARGO_PKG_VERSION").to_owned(), libtorch: LIBTORCH_VERSION.to_owned() }
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

fn source_precision(graph: &GraphProto) -> SourcePrecision {
    let quantised = graph.initializer.iter().any(|tensor| tensor.name.ends_with("_quantized"));
    if quantised { SourcePrecision::Int8 } else { SourcePrecision::Float32 }
}

/// A directory that is not complete yet. It is deleted unless it is moved to its path.
struct StagingDir {
    path: PathBuf,
}

impl StagingDir {
    fn beside(out: &Path) -> Result<StagingDir, ConvertError> {
        let path = sibling(out, &format!("new-{}", std::process::id()))?;
        let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(cannot_write)?;
            remove_leftovers(parent, out);
        }
        fs::create_dir(&path).map_err(cannot_write)?;
        Ok(StagingDir { path })
    }

    fn move_to(self, out: &Path) -> Result<(), ConvertError> {
        let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
        let old = sibling(out, &format!("old-{}", std::process::id()))?;
        match fs::rename(out, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(error)),
        }
        fs::rename(&self.path, out).map_err(cannot_write)?;
        // The rest of a replaced directory is harmless; the next conversion removes it.
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

// `.NAME.SUFFIX` in the same folder, so that a rename can move it.
fn sibling(out: &Path, suffix: &str) -> Result<PathBuf, ConvertError> {
    let name = out.file_name().ok_or_else(|| ConvertError::OutputExists(out.to_owned()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{suffix}"));
    Ok(out.with_file_name(hidden))
}

// A killed conversion leaves its directory behind, whose name ends with the id of its process.
fn remove_leftovers(parent: &Path, out: &Path) {
    let prefix = format!(".{}.", out.file_name().unwrap_or_default().to_string_lossy());
    let entries = fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let suffix = name.strip_prefix(&prefix).unwrap_or_default();
        let process = suffix.strip_prefix("new-").or_else(|| suffix.strip_prefix("old-"));
        let process = process.and_then(|number| number.parse::<u32>().ok());
        if process.is_some_and(|number| !Path::new("/proc").join(number.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
