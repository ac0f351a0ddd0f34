//! Makes a model directory out of an ONNX file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use muse_model::{
    model_dir::{
        FORMAT, FileEntry, LICENSE_FILE, LISTED_FILES, MANIFEST_FILE, MODEL_FILE, Manifest, ModelDir,
        ModelDirError, Precision, Source, SourcePrecision, TOKENIZER_FILE, Versions,
    },
    tokenizer::{Tokenizer, TokenizerError},
};
use sha2::{Digest, Sha256};
use tch::{CModule, TchError, Tensor};

use crate::{
    encoder::{Encoder, EncoderError},
    onnx::{self, GraphProto, OnnxError},
    weights::{DIMENSION, Weights},
};

const LICENSE_TEXT: &str = include_str!("../LICENSE-WEIGHTS");
const ATTRIBUTION: &str = "universal-sentence-encoder-multilingual, version 3, by Google (arXiv 1907.04307)";
const LIBTORCH_VERSION: &str = "2.11.0";
const LANGUAGES: [&str; 16] = [
    "ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh-Hans", "zh-Hant",
];

/// Why a conversion did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The ONNX file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The ONNX file is not this model.
    #[error("{}: {error}", .path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: OnnxError,
    },
    /// The SentencePiece model in the ONNX file cannot be used.
    #[error("{}: its tokenizer: {error}", .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: TokenizerError,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Something is at the output's place that is not a model directory, and is left alone.
    #[error("{} is there already and is not a model directory: give another place", .0.display())]
    InTheWay(PathBuf),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
    /// The module does not compute what the forward pass computes.
    #[error("the traced module differs from the forward pass by {0}: nothing was written")]
    Traced(f64),
}

/// What [`convert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The directory was written.
    Converted,
    /// The directory already held a conversion of the same file, in the same precision, by the same version.
    UpToDate,
}

/// Converts the ONNX file at `onnx_path` into a model directory at `out`.
///
/// The directory is made under another name beside `out` and renamed, so that `out` is never half made.
pub fn convert(onnx_path: &Path, out: &Path, precision: Precision) -> Result<Outcome, ConvertError> {
    let bytes =
        fs::read(onnx_path).map_err(|error| ConvertError::Read { path: onnx_path.to_owned(), error })?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let opened = ModelDir::open(out);
    if opened.as_ref().is_ok_and(|dir| is_conversion_of(dir.manifest(), &sha256, precision)) {
        return Ok(Outcome::UpToDate);
    }
    refuse_what_is_in_the_way(out, opened.err().as_ref())?;

    let bad_onnx = |error| ConvertError::Onnx { path: onnx_path.to_owned(), error };
    let graph = onnx::parse(&bytes).map_err(bad_onnx)?;
    let tokenizer = onnx::tokenizer_model(&graph).map_err(bad_onnx)?;
    // Refuses one that the embedder could not use.
    let vocabulary = Tokenizer::from_bytes(tokenizer)
        .map_err(|error| ConvertError::Tokenizer { path: onnx_path.to_owned(), error })?
        .vocabulary_size();
    let encoder = Encoder::new(&Weights::of(&graph), precision).map_err(|error| match error {
        EncoderError::Weights(error) => bad_onnx(error),
        EncoderError::Torch(error) => ConvertError::Torch(error),
    })?;
    let module = tch::no_grad(|| traced(&encoder))?;

    let fresh = Fresh::beside(out)?;
    let cannot_write = |error| ConvertError::Write { path: fresh.path.clone(), error };
    module.save(fresh.path.join(MODEL_FILE))?;
    fs::write(fresh.path.join(TOKENIZER_FILE), tokenizer).map_err(cannot_write)?;
    fs::write(fresh.path.join(LICENSE_FILE), format!("{ATTRIBUTION}\n\n{LICENSE_TEXT}"))
        .map_err(cannot_write)?;
    let mut files = BTreeMap::new();
    for name in LISTED_FILES {
        files.insert(name.to_owned(), FileEntry::of(&fresh.path.join(name)).map_err(cannot_write)?);
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
        source: Source { file, sha256, precision: source_precision(&graph) },
        versions: versions(),
        license: "Apache-2.0".to_owned(),
        attribution: ATTRIBUTION.to_owned(),
        files,
        checksum: String::new(),
    };
    let manifest = manifest.to_bytes().map_err(|error| cannot_write(error.into()))?;
    fs::write(fresh.path.join(MANIFEST_FILE), manifest).map_err(cannot_write)?;
    fresh.put_at(out)?;
    Ok(Outcome::Converted)
}

fn is_conversion_of(manifest: &Manifest, sha256: &str, precision: Precision) -> bool {
    manifest.source.sha256 == sha256 && manifest.precision == precision && manifest.versions == versions()
}

fn versions() -> Versions {
    Versions { muse: env!("CARGO_PKG_VERSION").to_owned(), libtorch: LIBTORCH_VERSION.to_owned() }
}

// A directory that holds a manifest is an older, other or damaged conversion and may be replaced; so may an empty one.
fn refuse_what_is_in_the_way(out: &Path, why_not_opened: Option<&ModelDirError>) -> Result<(), ConvertError> {
    let opens = why_not_opened.is_none();
    let replaceable = opens || !out.exists() || out.join(MANIFEST_FILE).is_file() || is_empty(out);
    if replaceable { Ok(()) } else { Err(ConvertError::InTheWay(out.to_owned())) }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

fn source_precision(graph: &GraphProto) -> SourcePrecision {
    let quantised = graph.initializer.iter().any(|tensor| tensor.name.ends_with("_quantized"));
    if quantised { SourcePrecision::Int8 } else { SourcePrecision::Float32 }
}

fn traced(encoder: &Encoder) -> Result<CModule, ConvertError> {
    let example = [batch(&[5, 2, 9])?, batch(&[1, 3, 7, 2, 12])?];
    let mut failed = None;
    let [ids, lengths] = &example[0];
    let mut closure = |inputs: &[Tensor]| {
        let output = encoder.forward(&inputs[0], &inputs[1]);
        output.map_or_else(
            |error| {
                failed = Some(error);
                Vec::new()
            },
            |vectors| vec![vectors],
        )
    };
    let inputs = [ids.shallow_clone(), lengths.shallow_clone()];
    let module = CModule::create_by_tracing("Muse", "forward", &inputs, &mut closure);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let module = module?;
    tch::jit::f_set_graph_executor_optimize(false)?;
    // Shapes other than the example's show whether something of the example was baked in.
    for [ids, lengths] in &example {
        let difference = module.forward_ts(&[ids, lengths])?.f_sub(&encoder.forward(ids, lengths)?)?;
        let largest = difference.f_abs()?.f_max()?.f_double_value(&[])?;
        if largest.is_nan() || largest > 1e-5 {
            return Err(ConvertError::Traced(largest));
        }
    }
    Ok(module)
}

fn batch(lengths: &[i64]) -> Result<[Tensor; 2], TchError> {
    let total: i64 = lengths.iter().sum();
    // Any ids will do; these lie in different shards of the table.
    let ids: Vec<i64> = (0..total).map(|position| 1 + position * 101).collect();
    Ok([Tensor::f_from_slice(&ids)?, Tensor::f_from_slice(lengths)?])
}

/// A directory in the making, deleted again unless it is put in its place.
struct Fresh {
    path: PathBuf,
}

impl Fresh {
    fn beside(out: &Path) -> Result<Fresh, ConvertError> {
        let path = sibling(out, &format!("new-{}", std::process::id()))?;
        let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(cannot_write)?;
            remove_leftovers(parent, out);
        }
        fs::create_dir(&path).map_err(cannot_write)?;
        Ok(Fresh { path })
    }

    fn put_at(self, out: &Path) -> Result<(), ConvertError> {
        let cannot_write = |error| ConvertError::Write { path: out.to_owned(), error };
        let old = sibling(out, &format!("old-{}", std::process::id()))?;
        match fs::rename(out, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(error)),
        }
        fs::rename(&self.path, out).map_err(cannot_write)?;
        // What is left of the replaced directory does no harm, and the next conversion tries again.
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

// `.NAME.SUFFIX` in the same folder, so that a rename can move it into place.
fn sibling(out: &Path, suffix: &str) -> Result<PathBuf, ConvertError> {
    let name = out.file_name().ok_or_else(|| ConvertError::InTheWay(out.to_owned()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{suffix}"));
    Ok(out.with_file_name(hidden))
}

// Conversions that were killed leave their directory behind; its name ends in the number of their process.
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
