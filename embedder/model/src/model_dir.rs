//! The model directory, which `muse-models convert` writes and the embedder opens.
//!
//! It contains `model.pt` (TorchScript), `tokenizer.model` (the SentencePiece model), `LICENSE` and
//! `manifest.json`, which lists the size and sha256 of the others and has a checksum of its own.
//! Opening verifies all of them, so that a damaged copy is rejected at start-up, with the name of
//! the file, instead of returning wrong vectors.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::precision::Precision;

/// The TorchScript module.
pub const MODEL_FILE: &str = "model.pt";
/// The SentencePiece model.
pub const TOKENIZER_FILE: &str = "tokenizer.model";
/// The licence of the weights.
pub const LICENSE_FILE: &str = "LICENSE";
/// The manifest: lists and describes the other files.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The files that the manifest lists, exactly.
pub const LISTED_FILES: [&str; 3] = [LICENSE_FILE, MODEL_FILE, TOKENIZER_FILE];

/// The format that this version writes and reads. A change of the files, or of the inputs and
/// outputs of `model.pt`, that makes older directories unusable increments it.
pub const FORMAT: u32 = 6;

/// The type of the weights in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourcePrecision {
    /// Quantised, with a scale and a zero point per tensor.
    Int8,
    /// The original float32.
    Float32,
}

impl SourcePrecision {
    /// The name, in the manifest and elsewhere.
    pub fn as_str(self) -> &'static str {
        match self {
            SourcePrecision::Int8 => "int8",
            SourcePrecision::Float32 => "float32",
        }
    }
}

impl fmt::Display for SourcePrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The file that a model was converted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, without directories.
    pub file: String,
    /// Its sha256, in hexadecimal.
    pub sha256: String,
    /// The type of its weights.
    pub precision: SourcePrecision,
    /// The sha256 of its weights as float32, in hexadecimal. Files of different formats with the
    /// same weights have the same value.
    pub weights_sha256: String,
}

/// The versions that wrote the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Version of `muse-models`.
    pub muse: String,
    /// Version of libtorch that wrote `model.pt`.
    pub libtorch: String,
}

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// sha256 in hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

impl FileEntry {
    /// Reads a file, and returns its size and digest.
    pub fn of(path: &Path) -> io::Result<FileEntry> {
        FileEntry::read(&mut File::open(path)?)
    }

    /// Reads to the end, and returns the size and digest of what was read.
    pub fn read(from: &mut dyn Read) -> io::Result<FileEntry> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(FileEntry { sha256: hex(&hasher.finalize()), bytes });
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
    }
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Name of the model.
    pub name: String,
    /// Version of the model, not of the conversion.
    pub version: String,
    /// Components of a vector.
    pub dimension: u32,
    /// The number of token ids, which start at 0.
    pub vocabulary: u32,
    /// Languages that the model was trained on, as BCP 47 tags.
    pub languages: Vec<String>,
    /// The source of the conversion.
    pub source: Source,
    /// The versions that converted it.
    pub versions: Versions,
    /// SPDX identifier of the licence of the weights.
    pub license: String,
    /// The authors of the weights.
    pub attribution: String,
    /// The other files, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// sha256 of this file with an empty `checksum`.
    pub checksum: String,
}

impl Manifest {
    /// The fingerprint of the model in a precision: a short id of what produces a vector, which is
    /// the weights, the tokenizer, and the precision of the forward pass. It is the name of the
    /// precision, `-`, and 12 hexadecimal digits of a sha256.
    ///
    /// Models with the same fingerprint return the same vectors, up to rounding errors of the
    /// precision: it does not depend on the device, the kernel, or the batch.
    #[must_use]
    pub fn fingerprint(&self, precision: Precision) -> String {
        let tokenizer = self.files.get(TOKENIZER_FILE).map_or("", |entry| entry.sha256.as_str());
        let weights = &self.source.weights_sha256;
        let digest = Sha256::digest(format!("{weights}\n{tokenizer}\n{precision}\n"));
        format!("{precision}-{}", hex(&digest[..6]))
    }

    /// The bytes of `manifest.json`, with its checksum.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let blank = Manifest { checksum: String::new(), ..self.clone() };
        let checksum = hex(&Sha256::digest(pretty(&blank)?));
        pretty(&Manifest { checksum, ..blank })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Manifest, ModelDirProblem> {
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| ModelDirProblem::Manifest(error.to_string());
        // Checked first: a later format may have fields that this version does not know.
        let found = serde_json::from_slice::<OnlyFormat>(bytes).map_err(unreadable)?.format;
        if found != FORMAT {
            return Err(ModelDirProblem::Format { found });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(unreadable)?;
        if manifest.to_bytes().map_err(unreadable)? != bytes {
            return Err(ModelDirProblem::Checksum { file: MANIFEST_FILE.to_owned() });
        }
        let listed: Vec<&str> = manifest.files.keys().map(String::as_str).collect();
        if listed != LISTED_FILES {
            return Err(ModelDirProblem::Manifest(format!(
                "it lists {listed:?} instead of {LISTED_FILES:?}"
            )));
        }
        Ok(manifest)
    }
}

/// Why a model directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the model directory {} {problem}", .path.display())]
pub struct ModelDirError {
    /// The directory.
    pub path: PathBuf,
    /// The problem.
    pub problem: ModelDirProblem,
}

/// The problem of a model directory. The text is a predicate of the directory.
#[derive(Debug, thiserror::Error)]
pub enum ModelDirProblem {
    /// The directory does not exist, or is a file.
    #[error("does not exist, or is not a directory")]
    NoDirectory,
    /// A file does not exist.
    #[error("lacks {file}")]
    Missing {
        /// The file's name.
        file: String,
    },
    /// One of its files could not be read.
    #[error("has a file {file} that cannot be read: {source}")]
    Io {
        /// The file's name.
        file: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The manifest is not valid.
    #[error("has an invalid {MANIFEST_FILE}: {0}")]
    Manifest(String),
    /// The directory has the format of another version.
    #[error("has format {found}, not {FORMAT} as this version: {}", if *found > FORMAT {
        "a newer version wrote it, update this program"
    } else {
        "convert the model again"
    })]
    Format {
        /// Its format.
        found: u32,
    },
    /// A file has another size than in the manifest.
    #[error("has a damaged {file}: {found} bytes instead of {expected}")]
    Size {
        /// The file's name.
        file: String,
        /// The size in the manifest.
        expected: u64,
        /// Its size.
        found: u64,
    },
    /// A file has other contents than were written.
    #[error("has a damaged {file}: its sha256 does not match")]
    Checksum {
        /// The file's name.
        file: String,
    },
}

/// A model directory with verified files.
#[derive(Debug, Clone)]
pub struct ModelDir {
    path: PathBuf,
    manifest: Manifest,
    tokenizer: Vec<u8>,
}

impl ModelDir {
    /// Opens a directory, and verifies the presence, size and sha256 of each file.
    pub fn open(path: impl Into<PathBuf>) -> Result<ModelDir, ModelDirError> {
        let path = path.into();
        match read_verified(&path) {
            Ok((manifest, tokenizer)) => Ok(ModelDir { path, manifest, tokenizer }),
            Err(problem) => Err(ModelDirError { path, problem }),
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The path of `model.pt`.
    pub fn model_path(&self) -> PathBuf {
        self.path.join(MODEL_FILE)
    }

    /// The bytes of the SentencePiece model.
    pub fn tokenizer_bytes(&self) -> &[u8] {
        &self.tokenizer
    }
}

/// The manifest and the bytes of the tokenizer, after all files are verified.
fn read_verified(path: &Path) -> Result<(Manifest, Vec<u8>), ModelDirProblem> {
    if !path.is_dir() {
        return Err(ModelDirProblem::NoDirectory);
    }
    let manifest = Manifest::from_bytes(&read(path, MANIFEST_FILE)?)?;
    for (file, expected) in &manifest.files {
        check(&path.join(file), file, expected)?;
    }
    let tokenizer = read(path, TOKENIZER_FILE)?;
    Ok((manifest, tokenizer))
}

fn check(path: &Path, file: &str, expected: &FileEntry) -> Result<(), ModelDirProblem> {
    // The size first: it detects a truncated copy without reading it.
    let found = fs::metadata(path).map_err(|error| cannot_read(file, error))?.len();
    if found != expected.bytes {
        return Err(ModelDirProblem::Size { file: file.to_owned(), expected: expected.bytes, found });
    }
    let entry = FileEntry::of(path).map_err(|error| cannot_read(file, error))?;
    if entry == *expected { Ok(()) } else { Err(ModelDirProblem::Checksum { file: file.to_owned() }) }
}

fn read(directory: &Path, file: &str) -> Result<Vec<u8>, ModelDirProblem> {
    fs::read(directory.join(file)).map_err(|error| cannot_read(file, error))
}

fn cannot_read(file: &str, source: io::Error) -> ModelDirProblem {
    let file = file.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ModelDirProblem::Missing { file },
        _ => ModelDirProblem::Io { file, source },
    }
}

fn pretty(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_dir(path: &Path) -> Manifest {
        let mut files = BTreeMap::new();
        for name in LISTED_FILES {
            fs::write(path.join(name), format!("contents of {name}")).unwrap();
            files.insert(name.to_owned(), FileEntry::of(&path.join(name)).unwrap());
        }
        let (file, sha256) = ("m.onnx".to_owned(), "00".to_owned());
        let source =
            Source { file, sha256, precision: SourcePrecision::Int8, weights_sha256: "11".to_owned() };
        let manifest = Manifest {
            format: FORMAT,
            name: "m".to_owned(),
            version: "3".to_owned(),
            dimension: 512,
            vocabulary: 10,
            languages: vec!["en".to_owned()],
            source,
            versions: Versions { muse: "0".to_owned(), libtorch: "2".to_owned() },
            license: "Apache-2.0".to_owned(),
            attribution: "somebody".to_owned(),
            files,
            checksum: String::new(),
        };
        fs::write(path.join(MANIFEST_FILE), manifest.to_bytes().unwrap()).unwrap();
        manifest
    }

    #[test]
    fn flipped_bit_is_rejected_with_the_file_name() {
        let dir = tempfile::tempdir().unwrap();
        write_dir(dir.path());
        ModelDir::open(dir.path()).unwrap();
        for name in [MODEL_FILE, TOKENIZER_FILE, LICENSE_FILE, MANIFEST_FILE] {
            let path = dir.path().join(name);
            let good = fs::read(&path).unwrap();
            for position in 0..good.len() {
                let mut bad = good.clone();
                bad[position] ^= 1;
                fs::write(&path, bad).unwrap();
                let error = ModelDir::open(dir.path()).unwrap_err().to_string();
                // A flip inside the manifest may also make its format or its list invalid.
                assert!(
                    error.contains(name) || error.contains("has format"),
                    "{name} at {position}: {error}"
                );
            }
            fs::write(&path, good).unwrap();
        }
        ModelDir::open(dir.path()).unwrap();
    }

    #[test]
    fn missing_or_truncated_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write_dir(dir.path());
        fs::write(dir.path().join(MODEL_FILE), "short").unwrap();
        let problem = |path: &Path| ModelDir::open(path).unwrap_err().problem;
        assert!(matches!(problem(dir.path()), ModelDirProblem::Size { file, .. } if file == MODEL_FILE));
        fs::remove_file(dir.path().join(TOKENIZER_FILE)).unwrap();
        fs::remove_file(dir.path().join(MODEL_FILE)).unwrap();
        assert!(matches!(problem(dir.path()), ModelDirProblem::Missing { file } if file == MODEL_FILE));
        assert!(matches!(problem(&dir.path().join("no")), ModelDirProblem::NoDirectory));
        let text = ModelDir::open(dir.path()).unwrap_err().to_string();
        assert_eq!(text, format!("the model directory {} lacks {MODEL_FILE}", dir.path().display()));
    }

    #[test]
    fn fingerprint_depends_on_weights_tokenizer_and_precision_alone() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = write_dir(dir.path());
        let fingerprint = manifest.fingerprint(Precision::F32);
        assert!(fingerprint.starts_with("f32-") && fingerprint.len() == 16, "{fingerprint}");
        let changed = |change: &dyn Fn(&mut Manifest)| {
            let mut other = manifest.clone();
            change(&mut other);
            other.fingerprint(Precision::F32)
        };
        let others = [
            changed(&|manifest| manifest.source.weights_sha256 = "12".to_owned()),
            changed(&|manifest| manifest.files.get_mut(TOKENIZER_FILE).unwrap().sha256 = "12".to_owned()),
            manifest.fingerprint(Precision::Bf16),
        ];
        assert!(others.iter().all(|other| *other != fingerprint), "{others:?}");
        let same = changed(&|manifest| {
            "saved_model.tar.gz".clone_into(&mut manifest.source.file);
            manifest.source.sha256 = "12".to_owned();
            manifest.source.precision = SourcePrecision::Float32;
            manifest.files.get_mut(MODEL_FILE).unwrap().sha256 = "12".to_owned();
            manifest.versions.muse = "9".to_owned();
        });
        assert_eq!(same, fingerprint);
    }

    #[test]
    fn directory_of_another_format_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let written = write_dir(dir.path());
        let advice = [(FORMAT - 1, "convert the model again"), (FORMAT + 1, "update this program")];
        for (format, advice) in advice {
            let manifest = Manifest { format, ..written.clone() };
            fs::write(dir.path().join(MANIFEST_FILE), manifest.to_bytes().unwrap()).unwrap();
            let error = ModelDir::open(dir.path()).unwrap_err();
            assert!(error.to_string().ends_with(advice), "{error}");
            assert!(matches!(error.problem, ModelDirProblem::Format { found } if found == format));
        }
    }
}
